"""SDXL adapters of any size, in both formats, whose weights cost nothing to make."""

from pathlib import Path

from tests.adapters import Named, adapter_tensors, alpha_bytes, placed, safetensors_header
from tests.formats.torch_bytes import held, tensor, torch_zip


def sdxl(size: int) -> list[Named]:
    """Return the tensors of an SDXL LoRA of at most `size` bytes, the largest rank that fits."""
    per_rank = sum(found.nbytes for found in placed(adapter_tensors("sdxl", rank=1)))
    return adapter_tensors("sdxl", rank=size // per_rank)


def write_sparse(path: Path, tensors: list[Named]) -> None:
    """Write header and alphas; the weights are a hole."""
    ordered = placed(tensors)
    header = safetensors_header(ordered, {"ss_base_model_version": "sdxl_base_v1-0"})
    with path.open("wb") as file:
        file.write(header)
        for found in ordered:
            if found.name.endswith(".alpha"):
                file.seek(len(header) + found.begin)
                file.write(alpha_bytes(found.dtype, 8.0))
        file.truncate(len(header) + ordered[-1].begin + ordered[-1].nbytes)


def torch_checkpoint(tensors: list[Named]) -> bytes:
    """Return a checkpoint of torch.save with a storage for each tensor."""
    root = {
        found.name: tensor(held(_weights(found.name, found.nbytes), "Half", str(at)), found.shape)
        for at, found in enumerate(placed(tensors))
    }
    return torch_zip(root)


def _weights(name: str, nbytes: int) -> bytes:
    return alpha_bytes("F16", 8.0) if name.endswith(".alpha") else bytes(nbytes)


def write(path: Path, tensors: list[Named]) -> None:
    """Write a file in the format of its extension."""
    if path.suffix == ".pt":
        path.write_bytes(torch_checkpoint(tensors))
    else:
        write_sparse(path, tensors)
