"""Results where teams look for them: webhooks and MLflow."""
