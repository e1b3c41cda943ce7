"""Reports without a measurement: healthy, broken, partial, huge, and written by an enemy.

`healthy()` looks like what an SDXL style gives; the others say what they change of it. Numbers
are made up but consistent, and the same every time.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import cache

from lora_server.evaluation.report import (
    EVALUATOR,
    SCHEMA,
    Cohort,
    CohortFeature,
    Finding,
    HeatMap,
    Neighbour,
    Report,
    Result,
    StackConflict,
    Stage,
    Subject,
    Tier,
    Verdict,
)
from tests.evaluation.measures import measured, module, sdxl_modules

HOSTILE_NAMES = (
    "<script>alert(1)</script>",
    '"><img src=https://evil.example/x onerror=alert(1)>',
    "</title></style></svg><svg onload=alert(1)>",
    "{{ 7 * 7 }}{% raw %}",
    "gnp.\N{RIGHT-TO-LEFT OVERRIDE}exe\N{RIGHT-TO-LEFT ISOLATE}",
    "\x1b[31mred\x1b[0m\x1b]0;title\x07\x9b2J",
    "line\r\nbreak\x00\x08\N{LINE SEPARATOR}",
    "[bold red]markup[/bold red]:smile:",
    "a\N{COMBINING GRAVE ACCENT}" + "\N{COMBINING GRAVE ACCENT}" * 200,
    "very.long." * 400,
    "&lt;b&gt;&#60;i&#62;",
    "javascript:alert(1)",
    "\u05d0\u05d1\u05d2 right to left",
    "",
)


PASSED = (
    Finding("W01", "Finite values", Result.PASS, required=True, summary="No NaN, no infinity."),
    Finding("W02", "Trained", Result.PASS, required=True, summary="No module is all zero."),
    Finding("W03", "Pairs", Result.PASS, required=True, summary="Every down has its up."),
    Finding("W05", "Number formats", Result.PASS, required=False, summary="All in bf16."),
)
RESIZE = Finding(
    "W11",
    "Size",
    Result.INFO,
    required=False,
    summary="Rank 64 is declared, 24 would keep 99.4 % of the strength.",
    advice="Resize to rank 24 to save 63 % of the file.",
)
UNAVAILABLE = Finding(
    "W04",
    "Fits its base model",
    Result.UNAVAILABLE,
    required=False,
    summary="No base model is configured to compare names with.",
)
DUPLICATE = Finding(
    "W09",
    "Duplicates",
    Result.WARN,
    required=False,
    summary="styles/ink_v2.safetensors has the same weights but for rounding (cosine 0.9998).",
    advice="Keep one of the two.",
    links=("styles/ink_v2.safetensors",),
)
BROKEN = Finding(
    "W01",
    "Finite values",
    Result.FAIL,
    required=True,
    summary="2 of 78 modules hold NaN or infinity; every image made with them would be black.",
    advice="Do not use this file: train again with a lower learning rate or in bf16.",
    modules=("lora_unet_mid_block_attentions_0_proj_in", "lora_unet_output_blocks_3_1_proj_out"),
    module_count=2,
)


def healthy() -> Report:
    """Return a sound SDXL style with a suggestion and a few relatives."""
    return Report(
        schema=SCHEMA,
        evaluator=EVALUATOR,
        id="ev_01j9x7k2m4",
        tier=Tier.WEIGHTS,
        verdict=Verdict.PASS,
        headline="Sound: all 78 modules are finite, trained and paired.",
        created_at="2026-03-14T09:26:53Z",
        lora=Subject(
            partial_path="styles/ink.safetensors",
            sha256="9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
            file_size=291_876_543,
            entity_type="styles",
            adapter="LoRA",
            base_model="sdxl",
            trigger_words=("inkwash", "sumi-e style"),
        ),
        stages=(Stage("reading and measuring", 0.842), Stage("neighbours", 0.213)),
        findings=(*PASSED, RESIZE, UNAVAILABLE),
        weights=measured(sdxl_modules()),
        nearest=(
            Neighbour("styles/ink_v2.safetensors", "ab" * 32, 0.93, 0.81, 78, "same training"),
            Neighbour("styles/brush.safetensors", "cd" * 32, 0.41, 0.37, 78, "similar"),
            Neighbour("clothes/kimono.safetensors", "ef" * 32, 0.12, None, 70, "similar"),
        ),
        conflicts=(
            StackConflict(
                "identities/mika.safetensors",
                0.62,
                0.08,
                "Both write into the same directions of 12 cross attention modules.",
            ),
        ),
        cohort=Cohort(
            "styles",
            "sdxl",
            214,
            (
                CohortFeature("strength (Frobenius norm)", 14.2, 11.8, 2.1, 0.77),
                CohortFeature("largest singular value", 1.9, 1.1, 0.2, 2.7),
                CohortFeature("effective rank", 11.3, 19.4, 1.3, -4.2),
                CohortFeature("text encoder share", 0.03, 0.03, 0.0, None),
            ),
        ),
        limits=(
            "Whether the names fit the base model: none is configured.",
            "How images look: this needs a base model and a GPU.",
        ),
        versions={"lora-server": "0.1.0", "numpy": "2.4.6", "python": "3.11.2"},
    )


def duplicate() -> Report:
    """Return a report that asks for a look: the same weights are stored already."""
    report = healthy()
    twin = Neighbour("styles/ink_v2.safetensors", "ab" * 32, 0.9998, 0.999, 78, "near duplicate")
    return replace(
        report,
        verdict=Verdict.REVIEW,
        headline="Look at this first: nearly the same weights are stored as ink_v2.",
        findings=(*PASSED, RESIZE, UNAVAILABLE, DUPLICATE),
        nearest=(twin, *report.nearest[1:]),
    )


def failing() -> Report:
    """Return a file with NaN in two modules; what depends on them is None."""
    report = healthy()
    modules = sdxl_modules()
    blank = dict.fromkeys(
        ("frobenius", "spectral", "stable_rank", "effective_rank", "participation"), None
    )
    for place, path in enumerate(BROKEN.modules):
        modules[place] = replace(
            modules[place],
            **blank,  # type: ignore[arg-type]  # every one of these may be None
            path=path,
            k90=None,
            k99=None,
            max_entry_bound=None,
            energy=None,
            spectrum=(),
            partial="holds NaN",
        )
    return replace(
        report,
        verdict=Verdict.FAIL,
        headline="Broken: 2 of 78 modules hold NaN or infinity.",
        findings=(*PASSED[1:], RESIZE, UNAVAILABLE, BROKEN),
        weights=replace(measured(modules), resize=None),
    )


def dora() -> Report:
    """Return a DoRA: measured without its magnitudes, so that the verdict stays open."""
    report = healthy()
    partial = "DoRA: the base model's column norms are missing"
    modules = [replace(m, family="DoRA", partial=partial) for m in sdxl_modules()]
    missing = replace(
        PASSED[1],
        result=Result.UNAVAILABLE,
        summary="The strength of a DoRA depends on its base model.",
        advice="Configure the base model and evaluate again.",
    )
    return replace(
        report,
        verdict=Verdict.INCONCLUSIVE,
        headline="Open: a DoRA cannot be judged without its base model.",
        lora=replace(report.lora, adapter="DoRA"),
        findings=(PASSED[0], missing, *PASSED[2:], UNAVAILABLE),
        weights=measured(modules),
    )


def lonely() -> Report:
    """Return the first LoRA of its kind: no neighbours, no conflicts, no cohort."""
    report = healthy()
    note = "No other LoRA of this type and base is stored."
    return replace(
        report,
        nearest=(),
        conflicts=(),
        cohort=Cohort("styles", None, 0, (), note),
        lora=replace(report.lora, adapter=None, base_model=None, trigger_words=()),
    )


def unmeasured() -> Report:
    """Return a file in which nothing could be measured at all."""
    report = failing()
    return replace(
        report, nearest=(), conflicts=(), weights=replace(measured([]), module_count=3), limits=()
    )


@cache
def huge(count: int = 5000) -> Report:
    """Return a file with as many modules as a report lists, and many of everything else."""
    report = healthy()
    modules = [
        module(
            f"lora_unet_{'deeply_nested_' * 15}{n}",
            f"target {n % 60}",
            n,
            strength=1 + n % 7,
            sharpness=0.1,
        )
        for n in range(count)
    ]
    columns = tuple(f"block {n}" for n in range(400))
    rows = tuple(f"target {n}" for n in range(60))
    weights = replace(
        measured(modules, cut=95_000),
        heat_map=HeatMap(rows, columns, tuple(tuple([0.0001] * 400) for _ in rows)),
    )
    finding = replace(DUPLICATE, modules=tuple(m.path for m in modules[:20]), module_count=count)
    return replace(
        report,
        weights=weights,
        findings=(finding,) * 40,
        nearest=report.nearest * 200,
        conflicts=report.conflicts * 200,
        limits=report.limits * 200,
        lora=replace(report.lora, trigger_words=("word",) * 3000),
        cohort=replace(report.cohort, features=report.cohort.features * 100),
    )


def hostile() -> Report:
    """Return a report in which every text that a file or a client wrote is an attack."""
    report = failing()
    names = HOSTILE_NAMES
    modules = [
        replace(m, path=names[n % len(names)], target=names[(n + 1) % len(names)], part=names[0])
        for n, m in enumerate(report.weights.modules)
    ]
    weights = measured(modules)
    finding = replace(
        BROKEN, name=names[0], summary=names[1], advice=names[5], modules=names, links=names
    )
    first = report.nearest[0]
    return replace(
        report,
        id=names[1],
        headline=names[0] + names[5],
        created_at=names[2],
        lora=replace(
            report.lora,
            partial_path=names[4],
            sha256=names[1],
            entity_type=names[6],
            adapter=names[2],
            base_model=names[7],
            trigger_words=names,
        ),
        stages=tuple(Stage(name, 0.1) for name in names),
        findings=(finding, *PASSED),
        weights=replace(
            weights,
            heat_map=HeatMap(names, names, tuple(tuple([0.01] * len(names)) for _ in names)),
        ),
        nearest=tuple(replace(first, partial_path=name, sha256=name) for name in names),
        conflicts=tuple(StackConflict(name, 0.5, 0.5, name) for name in names),
        cohort=replace(
            report.cohort,
            note=names[0],
            features=tuple(CohortFeature(name, 1.0, 1.0, 1.0, 0.0) for name in names),
        ),
        limits=names,
        versions=dict.fromkeys(names, names[0]),
    )


ALL: dict[str, Callable[[], Report]] = {
    "healthy": healthy,
    "duplicate": duplicate,
    "failing": failing,
    "dora": dora,
    "lonely": lonely,
    "unmeasured": unmeasured,
    "huge": huge,
    "hostile": hostile,
}
