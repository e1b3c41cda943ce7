"""What is told of GPUs: from NVML where there is one, with the reason where there is none."""

from types import SimpleNamespace

import pynvml
import pytest

from lora_server.evaluation.worker import gpu


def test_no_driver_is_a_reason() -> None:
    """A host without a GPU is told as such, without an error."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        assert gpu.facts()["gpus"] == []
        assert "no GPU is seen" in gpu.facts()["gpu_reason"]
    else:
        assert gpu.facts()["gpus"]
        pynvml.nvmlShutdown()


def test_memory_is_told_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each GPU is told with what it has and what is free."""
    ended = []
    memory = SimpleNamespace(total=80 * 1024**3, free=11 * 1024**3)
    for name, value in {
        "nvmlInit": lambda: None,
        "nvmlShutdown": lambda: ended.append(True),
        "nvmlDeviceGetCount": lambda: 2,
        "nvmlDeviceGetHandleByIndex": lambda index: index,
        "nvmlDeviceGetMemoryInfo": lambda _handle: memory,
        "nvmlDeviceGetName": lambda handle: f"GPU {handle}",
    }.items():
        monkeypatch.setattr(pynvml, name, value)

    assert gpu.facts() == {
        "gpus": [
            {"name": f"GPU {index}", "total": 80 * 1024**3, "free": 11 * 1024**3}
            for index in range(2)
        ],
        "gpu_reason": "",
    }
    assert ended == [True]


def test_a_driver_that_fails_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU that fell off the bus does not take the worker with it."""

    def fails() -> int:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)

    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlShutdown", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetCount", fails)

    assert gpu.facts()["gpus"] == []
    assert "does not answer" in gpu.facts()["gpu_reason"]
