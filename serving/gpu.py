"""The host's GPUs, as NVIDIA's driver tells of them; none where there is no driver."""

from __future__ import annotations

from dataclasses import dataclass

import pynvml

#: What torch says where a GPU's memory does not suffice; TorchServe answers 503 and goes on.
RAN_OUT = "CUDA out of memory"


@dataclass(frozen=True)
class Gpu:
    """One GPU: its name, and its memory in bytes, of which some is used."""

    name: str
    total_bytes: int
    used_bytes: int


def find_gpus() -> list[Gpu]:
    """All of them, as they are now."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    try:
        found = []
        for index in range(pynvml.nvmlDeviceGetCount()):
            device = pynvml.nvmlDeviceGetHandleByIndex(index)
            memory = pynvml.nvmlDeviceGetMemoryInfo(device)
            name = pynvml.nvmlDeviceGetName(device)
            found.append(Gpu(str(name), int(memory.total), int(memory.used)))
        return found
    except pynvml.NVMLError:
        return []
    finally:
        pynvml.nvmlShutdown()


def gpu_used_bytes() -> int:
    """What of all GPUs' memory is used."""
    return sum(gpu.used_bytes for gpu in find_gpus())
