"""What the tests of inspection share: one call from tensors to an inspection."""

from collections.abc import Iterable, Mapping, Sequence

from lora_server.formats.tensors import Container
from lora_server.inspection import Inspection, inspect
from lora_server.inspection.record import BaseModel
from tests.adapters import Named, held, lora_tensors
from tests.layers import Layer

Shape = tuple[int, ...]


def inspected(
    tensors: Iterable[Named],
    metadata: Mapping[str, str] | None = None,
    *,
    alpha: float = 8.0,
    container: Container = Container.SAFETENSORS,
) -> Inspection:
    """Return the inspection of a file of these tensors."""
    table, read = held(tensors, metadata, alpha=alpha, container=container)
    return inspect(table, read=read)


def tensors_of(path: str, parts: Mapping[str, Shape], dtype: str = "F16") -> list[Named]:
    """Return one module's tensors from its suffixes and shapes."""
    return [(f"{path}.{suffix}", dtype, shape) for suffix, shape in parts.items()]


def codes(inspection: Inspection) -> Sequence[str]:
    """Return the codes of all warnings."""
    return [warned.code for warned in inspection.warnings]


def base_of(layers: Iterable[Layer], style: str = "kohya", claim: str = "") -> BaseModel:
    """Return the verdict on a LoRA of these layers."""
    metadata = {"ss_base_model_version": claim} if claim else None
    return inspected(lora_tensors(layers, style=style), metadata).base_model
