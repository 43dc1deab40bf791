"""What `servetune verify` cannot check without the platform. Pure."""

from __future__ import annotations

_IMAGE = "the container image, and its versions of Python, torch and Java"
_BY_PLATFORM = {
    "compose": (_IMAGE, "Docker Compose itself"),
    "docker": (_IMAGE, "the build of the image"),
    "systemd": ("the hardening of the unit, under systemd", "the TorchServe in /opt/torchserve"),
    "kubernetes": (
        _IMAGE,
        "probes, storage, Service and autoscaler, in a cluster",
        "replicas: one was measured",
    ),
    "kserve": (
        _IMAGE,
        "KServe's own server, which stands before TorchServe",
        "storage, autoscaling and canary, in a cluster",
    ),
    "sagemaker": (
        _IMAGE,
        "the front end of SageMaker, its account and its instance type",
        "the scaling policy under load",
    ),
    "properties": ("the host that the files are for",),
}


def not_checked(platform: str) -> tuple[str, ...]:
    """Return what a verification of a platform's files leaves open."""
    return _BY_PLATFORM.get(platform, ())
