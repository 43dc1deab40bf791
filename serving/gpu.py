"""The host's NVIDIA GPUs, as the driver reports them."""

from __future__ import annotations

from dataclasses import dataclass

import pynvml


@dataclass(frozen=True)
class Gpu:
    """One GPU: its name, its total memory and the memory in use."""

    name: str
    total_bytes: int
    used_bytes: int


def find_gpus() -> list[Gpu]:
    """Return all GPUs of this host; none if there is no driver."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    try:
        gpus = []
        for index in range(pynvml.nvmlDeviceGetCount()):
            device = pynvml.nvmlDeviceGetHandleByIndex(index)
            memory = pynvml.nvmlDeviceGetMemoryInfo(device)
            name = pynvml.nvmlDeviceGetName(device)
            gpus.append(Gpu(str(name), int(memory.total), int(memory.used)))
        return gpus
    except pynvml.NVMLError:
        return []
    finally:
        pynvml.nvmlShutdown()


def gpu_used_bytes() -> int:
    """Return the memory in use on all GPUs of this host, summed."""
    return sum(gpu.used_bytes for gpu in find_gpus())
