"""The checks on what a file is and says: dtypes, declared rank and alpha, unexpected contents."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence

from lora_server.evaluation.report import Finding, Result, WeightsMeasure
from lora_server.evaluation.weights.adapted import Adapted, Contents
from lora_server.evaluation.weights.findings import named, plain
from lora_server.evaluation.weights.measuring import Measured
from lora_server.evaluation.weights.numbers import FLOAT8, FLOATS
from lora_server.formats.tensors import Container
from lora_server.inspection.families import Family
from lora_server.inspection.geometry import CONV_DIMS

FP16_MAX = 65504.0
_ALPHA_TOLERANCE = 0.01  # trainers round alpha to the dtype of the file


def declaration_checks(
    contents: Contents, measured: Sequence[Measured], measure: WeightsMeasure
) -> tuple[Finding, ...]:
    """Return the findings on dtypes, declarations and contents."""
    return (
        _coverage(),
        _dtypes(contents, measured),
        _declared(contents, measure),
        _contents(contents),
    )


def _coverage() -> Finding:
    return Finding(
        id="W04",
        name="Coverage of the base model",
        result=Result.UNAVAILABLE,
        required=False,
        summary="No base model's keys and norms are configured, so whether every module lands in "
        "one, and how strong the update is beside its weights, is not known.",
        advice="Configure the base model to have this checked.",
    )


def _dtypes(contents: Contents, measured: Sequence[Measured]) -> Finding:
    counts = Counter(tensor.dtype for m in contents.modules for tensor in m.weights)
    over = sorted(
        (one for one in measured if one.bound is not None and one.bound > FP16_MAX),
        key=lambda one: -(one.bound or 0.0),
    )
    odd = [module for module in contents.modules if _odd(module)]
    notes = [
        *(f"{dtype} is coarse" for dtype in counts if dtype in FLOAT8),
        *(f"{dtype} holds no fractions" for dtype in counts if dtype not in FLOATS),
    ]
    if len(counts) > 1:
        notes.append(f"dtypes are mixed: {', '.join(counts)}")
    if over:
        notes.append(f"{len(over)} modules may pass {FP16_MAX:g}, the most that fp16 holds")
    if not notes:
        summary = f"All weights are {next(iter(counts), 'none')} and within what fp16 holds."
        return plain("W05", "Number format", summary)
    concerned = dict.fromkeys([one.module.path for one in over] + [module.path for module in odd])
    return Finding(
        id="W05",
        name="Number format",
        result=Result.WARN,
        required=False,
        summary="; ".join(notes) + ".",
        advice="Load it in bfloat16 or float32." if over else "Save it in one of fp16 and bf16.",
        modules=named(concerned),
        module_count=len(concerned),
    )


def _odd(module: Adapted) -> bool:
    dtypes = {tensor.dtype for tensor in module.weights}
    return len(dtypes) > 1 or not dtypes <= FLOATS or not dtypes.isdisjoint(FLOAT8)


def _declared(contents: Contents, measure: WeightsMeasure) -> Finding:
    name = "Declared rank and alpha"
    said, wrong = _compared(contents)
    differences = list(dict.fromkeys(wrong))
    if not said:
        return plain("W06", name, "The metadata declares no rank or alpha.")
    if not differences:
        rank = "" if measure.rank is None else f", rank {measure.rank:g}"
        summary = f"The tensors are what the metadata declares{rank}."
        return plain("W06", name, summary)
    return Finding(
        id="W06",
        name=name,
        result=Result.WARN,
        required=False,
        summary="; ".join(differences[:4]) + ".",
        advice="The file was resized, merged or relabelled after training; trust the tensors.",
    )


def _compared(contents: Contents) -> tuple[int, list[str]]:
    """Return how many statements were held against the tensors, and what differed."""
    says = contents.declared
    ranked = [module for module in contents.modules if module.geometry.rank is not None]
    linear = [module for module in ranked if not _is_conv(module)] or ranked
    conv = [module for module in ranked if _is_conv(module) and _has_kernel(module)]
    parts = sorted({module.position.part for module in ranked})
    statements: list[tuple[str, float | None, Sequence[float | None]]] = [
        ("ss_network_dim", says.rank, [m.geometry.rank for m in linear]),
        ("conv_dim", says.conv_rank, [m.geometry.rank for m in conv]),
        ("ss_network_alpha", says.alpha, [m.alpha for m in linear]),
        ("conv_alpha", says.conv_alpha, [m.alpha for m in conv]),
    ]
    for part in parts:
        claim = says.of_part(part)
        if claim is not None:
            ranks = [m.geometry.rank for m in ranked if m.position.part == part]
            statements.append((f"r of {part}", claim.rank, ranks))
    made = [
        (what, declared, [value for value in values if value is not None])
        for what, declared, values in statements
        if declared is not None
    ]
    made = [statement for statement in made if statement[2]]
    return len(made), [line for statement in made for line in _difference(*statement)]


def _difference(what: str, declared: float, values: Sequence[float]) -> Iterator[str]:
    low, high = min(values), max(values)
    slack = _ALPHA_TOLERANCE * declared
    if not low - slack <= declared <= high + slack:
        found = f"{low:g}" if low == high else f"{low:g} to {high:g}"
        yield f"{what} is declared as {declared:g}, the tensors have {found}"


def _is_conv(module: Adapted) -> bool:
    return module.geometry.dims >= CONV_DIMS


def _has_kernel(module: Adapted) -> bool:
    """Whether the kernel is more than one element: trainers give 1x1 the linear rank."""
    return any(math.prod(tensor.shape[2:]) > 1 for tensor in module.weights)


def _contents(contents: Contents) -> Finding:
    full = [m.path for m in contents.modules if m.family is Family.FULL and m.geometry.dims]
    unknown = [m.path for m in contents.modules if m.family is Family.UNKNOWN]
    loose = [tensor.name for tensor in contents.plain]
    pickled = contents.table.container is not Container.SAFETENSORS
    noted = (
        (len(full), "modules hold whole weights"),
        (len(unknown), "modules are of no known family"),
        (len(loose), "tensors are no part of an adapter"),
        (contents.repeated, "tensors belong to a second adapter in the same file"),
    )
    notes = [f"{count} {what}" for count, what in noted if count]
    if pickled:
        notes.append("the file is a pickle, which can run code when loaded")
    if not notes:
        summary = "The file holds an adapter in safetensors and nothing else."
        return plain("W12", "Contents", summary)
    concerned = [*full, *unknown, *loose]
    return Finding(
        id="W12",
        name="Contents",
        result=Result.REVIEW,
        required=False,
        summary="; ".join(notes) + ".",
        advice="Have a person look at what this file is; convert a pickle to safetensors."
        if pickled
        else "Have a person look at what this file is.",
        modules=named(concerned),
        module_count=len(concerned),
    )
