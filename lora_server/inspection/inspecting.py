"""The inspection as a sequence of steps: sort, judge, measure, place, detect, warn."""

import math
from collections import Counter
from dataclasses import replace

from lora_server.formats.source import Read
from lora_server.formats.tensors import TensorTable
from lora_server.inspection.adapter import summed
from lora_server.inspection.cautions import Findings, cautions
from lora_server.inspection.claims import base_claims, variant
from lora_server.inspection.datasets import data_sets
from lora_server.inspection.detection import detect
from lora_server.inspection.hashes import hash_claims
from lora_server.inspection.impostors import refuse_merged, refuse_plain
from lora_server.inspection.layout import lay_out
from lora_server.inspection.modules import Module, Modules, Sorted, judge, sort
from lora_server.inspection.record import BaseModel, Inspection
from lora_server.inspection.scales import alphas
from lora_server.inspection.training import training
from lora_server.inspection.triggers import trigger_words


def inspect(table: TensorTable, *, read: Read) -> Inspection:
    """Return what the file says of itself.

    Args:
        table: the file's tensors and metadata, already checked against its size.
        read: (offset, nbytes) → bytes of the file; asked only for the alphas' few bytes.

    Raises:
        FileRefused: `lora_not_an_adapter`, `lora_incomplete` or `lora_shape_mismatch`.
    """
    found = _findings(table, read)
    data = data_sets(table.metadata)
    return Inspection(
        container=str(table.container),
        tensor_count=len(table.tensors),
        parameter_count=sum(math.prod(tensor.shape) for tensor in table.tensors),
        dtypes=dict(Counter(tensor.dtype for tensor in table.tensors).most_common()),
        adapter=found.adapter,
        base_model=found.base_model,
        trigger_words=trigger_words(table.metadata, data),
        hash_claims=found.hash_claims,
        warnings=cautions(found),
        training=training(table.metadata, data),
    )


def refuse_misfits(table: TensorTable) -> None:
    """Refuse what `inspect` would refuse; names and shapes are enough for that.

    Raises:
        FileRefused: as `inspect` does.
    """
    _modules(table)


def _modules(table: TensorTable) -> tuple[Sorted, Modules]:
    tensors = sort(table.tensors)
    modules = judge(tensors.parts)
    if not modules.complete:
        refuse_plain(table.tensors)
    refuse_merged(tensors.plain, len(modules.complete))
    return tensors, modules


def _findings(table: TensorTable, read: Read) -> Findings:
    tensors, modules = _modules(table)
    layout = lay_out((module.place, module.geometry) for module in modules.complete)
    values = _alphas(modules.complete, read)
    return Findings(
        table=table,
        modules=modules,
        alphas=values,
        repeated=tensors.repeated,
        plain_count=len(tensors.plain),
        layout=layout,
        adapter=summed(modules.complete, values, layout),
        base_model=_with_variant(detect(layout.groups, base_claims(table.metadata)), table),
        hash_claims=hash_claims(table.metadata),
    )


def _alphas(modules: tuple[Module, ...], read: Read) -> list[float | None]:
    """Return one alpha a module, None where there is none to read."""
    stored = [module.alpha for module in modules if module.alpha is not None]
    values = iter(alphas(stored, read))
    return [None if module.alpha is None else next(values) for module in modules]


def _with_variant(base_model: BaseModel, table: TensorTable) -> BaseModel:
    """Name the fine-tune where the base is the one whose fine-tunes have names."""
    named = variant(table.metadata) if base_model.name == "SDXL" else None
    return base_model if named is None else replace(base_model, variant=named)
