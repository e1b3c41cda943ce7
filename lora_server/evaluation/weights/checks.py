"""The checks on what was measured: finite, effective, paired, balanced, resizable."""

from collections.abc import Sequence

from lora_server.evaluation.report import Finding, Result, WeightsMeasure
from lora_server.evaluation.weights.adapted import Adapted, Contents
from lora_server.evaluation.weights.findings import named, plain
from lora_server.evaluation.weights.measuring import Measured
from lora_server.evaluation.weights.summing import is_zero
from lora_server.inspection.paths import DENOISER, PRIOR

ABSURD_SCALE = 10.0
DOMINANT_ENERGY = 0.5
# Fewer modules than this hold much each by nature.
_FEW_MODULES = 8
_ONE_DIRECTION = 0.99  # of the energy, in the first singular value
_NEARLY_ALL = 0.9  # of the modules


def checks(
    contents: Contents, measured: Sequence[Measured], measure: WeightsMeasure
) -> tuple[Finding, ...]:
    """Return the findings that follow from the numbers."""
    return (
        _finite(contents, measured),
        _effective(measured),
        _paired(contents, measured),
        _balanced(measured, measure),
        _text_encoders(measure),
        _resizable(measure),
    )


def _finite(contents: Contents, measured: Sequence[Measured]) -> Finding:
    bad = [one.module.path for one in measured if one.nonfinite] + list(contents.nonfinite)
    if not bad:
        return plain("W01", "Finite values", "Every stored number is finite.", required=True)
    return Finding(
        id="W01",
        name="Finite values",
        result=Result.FAIL,
        required=True,
        summary=f"{len(bad)} of {len(measured)} modules hold NaN or infinite values.",
        advice="Do not use this file: images turn black. Take an earlier checkpoint, or train "
        "again at a lower learning rate.",
        modules=named(bad),
        module_count=len(bad),
    )


def _effective(measured: Sequence[Measured]) -> Finding:
    told = [one for one in measured if one.numbers is not None or one.zero]
    zeros = [one.module.path for one in told if is_zero(one)]
    result, advice = Result.PASS, ""
    if not told:
        result = Result.FAIL if any(one.nonfinite for one in measured) else Result.UNAVAILABLE
        summary = "No module could be measured, so whether the file has an effect is not known."
    elif len(zeros) == len(told):
        result = Result.FAIL
        summary = f"The update of all {len(told)} modules is zero: the file changes nothing."
        advice = "It is untrained or was saved wrongly; export it again."
    elif zeros:
        result = Result.INFO
        share = len(zeros) / len(told)
        summary = f"The update of {len(zeros)} of {len(told)} modules ({share:.0%}) is zero."
        advice = "They cost memory and do nothing; if they were to be trained, look at the run."
    else:
        summary = f"All {len(told)} modules change something."
    return Finding(
        id="W02",
        name="Effect",
        result=result,
        required=True,
        summary=summary,
        advice=advice,
        modules=named(zeros),
        module_count=len(zeros),
    )


def _paired(contents: Contents, measured: Sequence[Measured]) -> Finding:
    broken = [one.module.path for one in measured if one.broken]
    scaled = [one.module for one in measured if one.module.geometry.rank is not None]
    wrong = [module.path for module in scaled if module.alpha is not None and not module.alpha > 0]
    absurd = sorted(
        (module for module in scaled if module.scale > ABSURD_SCALE),
        key=lambda module: -module.scale,
    )
    missing = [module.path for module in scaled if "alpha" not in module.parts]
    missing = missing if len(missing) < len(scaled) else []
    noted = (
        (broken, "have shapes that do not go together"),
        (wrong, "have an alpha that is not above 0"),
        ([module.path for module in absurd], f"have a scale over {ABSURD_SCALE:g}"),
        (missing, "have no alpha while others have one, and count with scale 1"),
        (contents.strays, "alphas or magnitudes belong to no weights"),
    )
    found = [(paths, what) for paths, what in noted if paths]
    if not found:
        count = f"All {len(measured)} modules are whole"
        summary = f"{count}; their scales are {_scales(scaled)}."
        return plain("W03", "Pairs and scales", summary, required=True)
    concerned = dict.fromkeys(path for paths, _ in found for path in paths)
    return Finding(
        id="W03",
        name="Pairs and scales",
        result=Result.FAIL if broken else Result.WARN,
        required=True,
        summary="; ".join(f"{len(paths)} {what}" for paths, what in found) + ".",
        advice="Loaders differ in what they make of this; export the file again.",
        modules=named(concerned),
        module_count=len(concerned),
    )


def _scales(modules: Sequence[Adapted]) -> str:
    scales = sorted({module.scale for module in modules})
    if not scales:
        return "not used"
    return f"{scales[0]:g}" if len(scales) == 1 else f"{scales[0]:g} to {scales[-1]:g}"


def _balanced(measured: Sequence[Measured], measure: WeightsMeasure) -> Finding:
    known = [one for one in measured if one.numbers is not None and one.numbers.frobenius]
    if len(known) < _FEW_MODULES:
        summary = f"{len(known)} modules are too few to be compared with each other."
        return plain("W07", "Balance", summary, result=Result.UNAVAILABLE)
    top = max(known, key=_frobenius)
    energy = (_frobenius(top) / measure.frobenius) ** 2 if measure.frobenius else 0.0
    if energy > DOMINANT_ENERGY:
        return Finding(
            id="W07",
            name="Balance",
            result=Result.WARN,
            required=False,
            summary=f"One module holds {energy:.0%} of the energy of {len(known)}.",
            advice="Look at images: one layer that outgrew all others often shows as artefacts.",
            modules=named([top.module.path]),
            module_count=1,
        )
    one_way = _one_directional(known)
    if one_way:
        return Finding(
            id="W07",
            name="Balance",
            result=Result.WARN,
            required=False,
            summary=f"{len(one_way)} of {len(known)} modules change along one direction only.",
            advice="A collapsed training looks like this; compare with an earlier checkpoint.",
            modules=named(one_way),
            module_count=len(one_way),
        )
    summary = f"The strongest of {len(known)} modules holds {energy:.1%} of the energy."
    return plain("W07", "Balance", summary)


def _one_directional(known: Sequence[Measured]) -> list[str]:
    """Return the modules of one direction where nearly all are such that could have more."""
    able = [one for one in known if (one.module.geometry.rank or 0) > 1]
    flat = [
        one.module.path
        for one in able
        if one.numbers is not None
        and one.numbers.stable_rank is not None
        and 1 / one.numbers.stable_rank > _ONE_DIRECTION
    ]
    return flat if len(able) >= _FEW_MODULES and len(flat) >= _NEARLY_ALL * len(able) else []


def _frobenius(one: Measured) -> float:
    return one.numbers.frobenius if one.numbers is not None else 0.0


def _text_encoders(measure: WeightsMeasure) -> Finding:
    energy = sum(part.energy for part in measure.parts if part.name not in {DENOISER, PRIOR})
    encoders = [part for part in measure.parts if part.name not in {DENOISER, PRIOR}]
    count = sum(part.module_count for part in encoders)
    if not encoders:
        return plain("W10", "Text encoders", "No text encoder is changed.")
    summary = f"{count} modules of text encoders hold {energy:.0%} of the energy."
    if energy <= 1 - energy:
        return plain("W10", "Text encoders", summary)
    return Finding(
        id="W10",
        name="Text encoders",
        result=Result.INFO,
        required=False,
        summary=summary,
        advice="Try prompts without the trigger word: such a LoRA tends to change them as well.",
        module_count=count,
    )


def _resizable(measure: WeightsMeasure) -> Finding:
    name = "Rank that is used"
    if measure.resize is None or measure.rank is None:
        return plain("W11", name, "The spectra are not known.", result=Result.UNAVAILABLE)
    rank, kept = measure.resize.rank, measure.resize.kept
    summary = (
        f"Rank {rank} would keep {kept:.2%} of the update's norm; the file has rank "
        f"{measure.rank:g}."
    )
    if rank > measure.rank / 2:
        return plain("W11", name, summary)
    alpha = "" if measure.resize.alpha is None else f" and alpha {measure.resize.alpha:g}"
    return Finding(
        id="W11",
        name=name,
        result=Result.INFO,
        required=False,
        summary=summary,
        advice=f"Resize to rank {rank}{alpha}: the file becomes {1 - rank / measure.rank:.0%} "
        "smaller and does the same.",
    )
