"""What NVML tells of the GPUs: asked in the worker, where no CUDA context is ever made for it."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import pynvml


def facts() -> Mapping[str, Any]:
    """Return the GPUs with their memory in bytes, or the reason why none is seen."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return {"gpus": [], "gpu_reason": f"no GPU is seen: {error}"}
    try:
        handles = [
            pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())
        ]
        return {"gpus": [_gpu(handle) for handle in handles], "gpu_reason": ""}
    except pynvml.NVMLError as error:
        return {"gpus": [], "gpu_reason": f"the GPU does not answer: {error}"}
    finally:
        with suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()


def _gpu(handle: Any) -> dict[str, Any]:
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    name = pynvml.nvmlDeviceGetName(handle)
    return {"name": str(name), "total": int(memory.total), "free": int(memory.free)}
