"""Which adapter family a module is of, told from its parts; halves without partner refused."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from lora_server.errors import FileRefused
from lora_server.inspection.metadata import text
from lora_server.inspection.suffixes import OFT_SPLITS


class Family(StrEnum):
    """The families of adapters that are told apart."""

    # An enumeration's own hash is Python code, and every module is counted by its family.
    __hash__ = str.__hash__

    LORA = "LoRA"
    LOCON = "LoCon"
    DORA = "DoRA"
    LOHA = "LoHa"
    LOKR = "LoKr"
    GLORA = "GLoRA"
    DIAG_OFT = "diag-OFT"
    BOFT = "BOFT"
    PEFT_OFT = "PEFT OFT"
    PEFT_BOFT = "PEFT BOFT"
    IA3 = "IA3"
    FULL = "full"
    NORM = "norm"
    UNKNOWN = "unknown"
    STRAY = "stray"  # an alpha or a magnitude without weights: no module at all


@dataclass(frozen=True, slots=True)
class Rule:
    """A family and spelling: any mark makes the rule apply, one of `needs` must be whole."""

    family: Family
    form: str
    marks: frozenset[str]
    needs: tuple[frozenset[str], ...]
    down: str = ""
    up: str = ""


@dataclass(frozen=True, slots=True)
class Signature:
    """What the parts of a module alone say of it."""

    rule: Rule
    complete: bool
    is_dora: bool


MAGNITUDES = frozenset({"dora_scale", "lora_magnitude_vector", "magnitude"})


def _lora(form: str, down: str, up: str, *also: str) -> Rule:
    both = frozenset({down, up})
    return Rule(Family.LORA, form, both.union(also), (both,), down, up)


def _whole(family: Family, form: str, *needs: Iterable[str], also: Iterable[str] = ()) -> Rule:
    alternatives = tuple(frozenset(need) for need in needs)
    return Rule(family, form, frozenset().union(*alternatives, also), alternatives)


_LOKR_W1 = ({"lokr_w1"}, {"lokr_w1_a", "lokr_w1_b"})
_LOKR_W2 = ({"lokr_w2"}, {"lokr_w2_a", "lokr_w2_b"})

# The first rule with a mark among the parts applies, so weights come before what goes with them.
RULES = (
    _lora("kohya", "lora_down", "lora_up", "lora_mid", "lora_up.bias"),
    _lora("PEFT", "lora_A.weight", "lora_B.weight", "lora_B.bias"),
    _lora("mochi", "lora_A", "lora_B"),
    _lora("PEFT", "lora_embedding_A", "lora_embedding_B"),
    _lora("diffusers attention processor", "_lora.down", "_lora.up"),
    _lora("diffusers lora layer", "lora.down", "lora.up"),
    _lora("diffusers linear layer", "lora_linear_layer.down", "lora_linear_layer.up"),
    _lora("XLabs", "_lora12.down", "_lora12.up"),
    _whole(
        Family.LOHA,
        "LyCORIS",
        {"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"},
        also={"hada_t1", "hada_t2"},
    ),
    _whole(
        Family.LOKR,
        "LyCORIS",
        *(w1 | w2 for w1 in _LOKR_W1 for w2 in _LOKR_W2),
        also={"lokr_t2"},
    ),
    _whole(Family.GLORA, "LyCORIS", {"glora_a1", "glora_a2", "glora_b1", "glora_b2"}),
    _whole(Family.DIAG_OFT, "LyCORIS", {"oft_blocks"}),
    _whole(Family.DIAG_OFT, "kohya", {OFT_SPLITS[0]}, also=OFT_SPLITS),
    _whole(Family.PEFT_OFT, "PEFT", {"oft_R"}, also={"scaled_oft"}),
    _whole(Family.PEFT_BOFT, "PEFT", {"boft_R", "boft_s"}),
    _whole(Family.IA3, "LyCORIS", {"weight", "on_input"}),
    _whole(Family.IA3, "PEFT", {"ia3_l"}),
    _whole(Family.FULL, "LyCORIS", {"diff"}, {"diff_b"}, {"set_weight"}, {"reshape_weight"}),
    _whole(Family.NORM, "LyCORIS", {"w_norm"}, {"b_norm"}),
    _whole(Family.NORM, "BFL control", {"norm_scale"}),
    Rule(Family.STRAY, "", frozenset({"alpha", "rescale", *MAGNITUDES}), (frozenset(),)),
)
# An IA3 weight looks like any other until its on_input is seen beside it.
_BARE_WEIGHT = frozenset({"weight"})
UNKNOWN = Rule(Family.UNKNOWN, "", frozenset(), (frozenset(),))


@lru_cache(maxsize=1024)
def signature(parts: tuple[str, ...]) -> Signature:
    """Return what these parts make together; the same few sets recur in every file."""
    present = frozenset(parts)
    rule = UNKNOWN if _is_unknown(present) else _rule(present)
    complete = any(need <= present for need in rule.needs)
    return Signature(rule, complete, not MAGNITUDES.isdisjoint(present))


def _is_unknown(present: frozenset[str]) -> bool:
    foreign = any(part == "unknown" or part.startswith("tuner:") for part in present)
    return foreign or (present >= _BARE_WEIGHT and "on_input" not in present)


def _rule(present: frozenset[str]) -> Rule:
    return next((rule for rule in RULES if not rule.marks.isdisjoint(present)), UNKNOWN)


def refuse_halves(halves: dict[str, tuple[str, ...]]) -> None:
    """Refuse a file in which modules (path → parts) lack a part that gives them meaning.

    Such files load in some programs and crash them later.
    """
    if not halves:
        return
    path, parts = next(iter(halves.items()))
    example = f"{text(path, max_chars=200)} has only {', '.join(sorted(parts))}"
    raise FileRefused("lora_incomplete", f"{len(halves)} modules lack a half: {example}")
