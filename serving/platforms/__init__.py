"""Readers of what each platform runs TorchServe from: manifests, units, images, variables."""
