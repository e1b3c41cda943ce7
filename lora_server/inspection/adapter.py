"""The adapter in sum: families, ranks, scales and targets over all its modules."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from lora_server.inspection.families import Family
from lora_server.inspection.layout import Layout
from lora_server.inspection.modules import Module
from lora_server.inspection.record import Adapter, Spread
from lora_server.inspection.targets import targets, text_encoders

MIXED = "mixed"
# In these alpha bounds the rotation and scales nothing.
ROTATIONS = frozenset({Family.DIAG_OFT, Family.BOFT, Family.PEFT_OFT, Family.PEFT_BOFT})
# Biases and norms are trained beside any family; LoCon is LoRA on the convolutions.
_COMPANIONS = frozenset({Family.NORM, Family.FULL})
_ABSORBS: Mapping[Family, frozenset[Family]] = {
    Family.LOCON: frozenset({Family.LORA}),
    Family.DORA: frozenset({Family.LORA, Family.LOCON}),
}

# Where the prefix tells more of the trainer than the form of the suffixes does.
_SPELLINGS: Mapping[tuple[str, str], str] = {
    ("OneTrainer", "kohya"): "OneTrainer",
    ("ai-toolkit", "PEFT"): "ai-toolkit",
    ("diffusers", "PEFT"): "diffusers",
}


def spread(values: Iterable[float]) -> Spread | None:
    """Return how finite values vary; None where there is none."""
    # A file repeats a few values, so they are counted first and looked at after.
    counts = Counter(values)
    for value in [value for value in counts if not math.isfinite(value)]:
        del counts[value]
    if not counts:
        return None
    return Spread(min(counts), max(counts), counts.most_common(1)[0][0])


def family_of(families: Mapping[Family, int]) -> str:
    """Return the one family of an adapter, or `mixed`."""
    leading = set(families) - _COMPANIONS or set(families)
    for family, absorbed in _ABSORBS.items():
        if family in leading:
            leading -= absorbed
    return str(leading.pop()) if len(leading) == 1 else MIXED


def summed(modules: Sequence[Module], alphas: Sequence[float | None], layout: Layout) -> Adapter:
    """Return the adapter whose modules have these alphas, None where one is missing."""
    families = Counter(module.family for module in modules)
    pairs = list(zip(modules, alphas, strict=True))
    # Without a rank, as in a LoKr of two full factors, loaders ignore alpha.
    scaling = [alpha for module, alpha in pairs if module.geometry.rank is not None]
    return Adapter(
        family=family_of(families),
        families={str(family): count for family, count in families.most_common()},
        spellings=_spellings(modules),
        module_count=len(modules),
        dora_module_count=sum(module.is_dora for module in modules),
        rank=spread(m.geometry.rank for m in modules if m.geometry.rank is not None),
        alpha=spread(alpha for alpha in scaling if alpha is not None),
        scale=spread(_scales(pairs)),
        constraint=spread(a for m, a in pairs if m.family in ROTATIONS and a is not None),
        alpha_count=sum(module.alpha is not None for module in modules),
        targets=targets(layout.groups),
        text_encoders=text_encoders(layout.groups),
    )


def _scales(pairs: Iterable[tuple[Module, float | None]]) -> Iterable[float]:
    for module, alpha in pairs:
        rank = module.geometry.rank
        if rank is not None:
            yield 1.0 if module.alpha is None or alpha is None else alpha / rank


def _spellings(modules: Iterable[Module]) -> dict[str, int]:
    counts: Counter[str] = Counter()
    pairs = Counter((module.place.writer, module.form) for module in modules)
    for (writer, form), count in pairs.items():
        counts[_spelling(writer, form)] += count
    # BFL's Control LoRAs write PEFT's suffixes without prefix; their norm scales give them away.
    if "BFL control" in counts:
        counts["BFL control"] += counts.pop("PEFT", 0)
    return dict(counts.most_common())


def _spelling(writer: str, form: str) -> str:
    if writer == "LyCORIS":
        return writer
    return _SPELLINGS.get((writer, form), form or str(Family.UNKNOWN))
