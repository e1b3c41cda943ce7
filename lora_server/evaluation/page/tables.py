"""The tables of the page that stand without a picture; each is bounded and says what it leaves."""

from lora_server.evaluation.page.figure import Table
from lora_server.evaluation.report import ModuleMeasure, Report, WeightsMeasure
from lora_server.evaluation.telling import cuts, strongest
from lora_server.evaluation.wording import file_size, number, percent, shortened

MOST_MODULES = 100
MOST_RELATIVES = 25
_MODULE_CHARS = 72
_PATH_CHARS = 80
_REASON_CHARS = 60
_LONG_CHARS = 200


def cut_table(report: Report) -> Table | None:
    """Return what smaller ranks would keep; None where that is not known."""
    found = cuts(report)
    if not found:
        return None
    cut = report.weights.modules_cut
    return Table(
        caption="If the file were cut to a smaller rank",
        head=("Rank", "Strength kept", "Module that loses most keeps", "File size, about"),
        rows=tuple(
            (
                f"{one.rank} (keeps 99 % of every module)" if one.advised else str(one.rank),
                percent(one.kept),
                percent(one.weakest),
                file_size(one.size),
            )
            for one in found
        ),
        marked=frozenset(index for index, one in enumerate(found) if one.advised),
        note=f"Without {number(cut)} weak modules that the report does not list." if cut else "",
    )


def nearest_table(report: Report) -> Table | None:
    """Return the stored LoRAs that are most alike; None where there are none."""
    shown = report.nearest[:MOST_RELATIVES]
    if not shown:
        return None
    return Table(
        caption="The most similar stored LoRAs",
        head=("LoRA", "What it is to this one", "Cosine", "Overlap", "Shared modules", "SHA-256"),
        rows=tuple(
            (
                shortened(one.partial_path, _PATH_CHARS),
                one.kind,
                f"{one.cosine:.4f}",
                number(one.overlap),
                number(one.shared_modules),
                shortened(one.sha256, 12),
            )
            for one in shown
        ),
        texts=frozenset({0, 1, 5}),
        note=_left_out(len(report.nearest) - len(shown), "more are left out"),
    )


def conflict_table(report: Report) -> Table | None:
    """Return the stored LoRAs that this one disturbs when both are loaded; None without any."""
    shown = report.conflicts[:MOST_RELATIVES]
    if not shown:
        return None
    return Table(
        caption="LoRAs that compete with this one when both are loaded",
        head=("LoRA", "Overlap", "Cosine", "Why"),
        rows=tuple(
            (
                shortened(one.partial_path, _PATH_CHARS),
                number(one.overlap),
                f"{one.cosine:.3f}",
                shortened(one.summary, _LONG_CHARS),
            )
            for one in shown
        ),
        texts=frozenset({0, 3}),
        note=_left_out(len(report.conflicts) - len(shown), "more are left out"),
    )


def module_table(weights: WeightsMeasure) -> Table | None:
    """Return the strongest modules, and what the others amount to; None without modules."""
    shown = strongest(weights.modules, MOST_MODULES)
    if not shown:
        return None
    partial = any(module.partial for module in shown)
    return Table(
        caption=f"The {len(shown)} modules with the most energy",
        head=(
            "Module",
            "Target",
            "Energy",
            "Strength",
            "Largest singular value",
            "Rank",
            "Effective rank",
            "k99",
            "Scale",
            "Type",
            *(["Partial because"] if partial else []),
        ),
        rows=tuple(_module_row(module, partial=partial) for module in shown),
        texts=frozenset({0, 1, 9, 10}),
        note=_others(weights, shown),
    )


def _module_row(module: ModuleMeasure, *, partial: bool) -> tuple[str, ...]:
    return (
        shortened(module.path, _MODULE_CHARS),
        shortened(module.target, 28),
        percent(module.energy),
        number(module.frobenius),
        number(module.spectral),
        number(module.rank),
        number(module.effective_rank),
        number(module.k99),
        number(module.scale),
        shortened(f"{module.family} {module.dtype}", 20),
        *([shortened(module.partial, _REASON_CHARS)] if partial else []),
    )


def _others(weights: WeightsMeasure, shown: list[ModuleMeasure]) -> str:
    count = weights.module_count - len(shown)
    energy = max(0.0, 1.0 - sum(module.energy or 0.0 for module in shown))
    told = f"other modules hold {percent(energy)} of the energy together"
    return _left_out(count, f"{told}; the JSON report lists them")


def _left_out(count: int, what: str) -> str:
    return f"{number(count)} {what}." if count > 0 else ""
