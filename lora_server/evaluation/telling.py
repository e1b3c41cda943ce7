"""What a report amounts to for a person: what matters first, and what a smaller rank would keep."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from lora_server.evaluation.report import Finding, ModuleMeasure, Report, Result, WeightsMeasure
from lora_server.evaluation.wording import file_size, number, percent

# A rank is worth a resize when it saves at least this share of the file.
_WORTH_SAVING = 0.2
_SEVERITY = (
    Result.FAIL,
    Result.WARN,
    Result.REVIEW,
    Result.INFO,
    Result.UNAVAILABLE,
    Result.PASS,
)
_PRESSING = {Result.FAIL, Result.WARN, Result.REVIEW}
_NOTHING = "Nothing has to be done."


@dataclass(frozen=True, slots=True)
class Cut:
    """What is left of a file that is cut to a rank; shares of Frobenius norms, 0 … 1."""

    rank: int
    kept: float  # of the whole file
    weakest: float  # of the module that loses most
    size: int  # bytes, about
    advised: bool


def by_severity(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return the findings, worst first; a required check that is open ranks right after a fail."""
    return tuple(sorted(findings, key=_severity))


def first_step(report: Report) -> str:
    """Return the one sentence on what to do first; what leaves the verdict alone is optional."""
    advised = [finding for finding in by_severity(report.findings) if finding.advice]
    for finding in advised:
        if finding.result in _PRESSING or _is_open(finding):
            return finding.advice
    return f"Nothing has to be done. Optional: {advised[0].advice}" if advised else _NOTHING


def reason(report: Report) -> str:
    """Return the headline without the verdict's name, which is shown beside it."""
    told = report.headline.removeprefix(f"{report.verdict.capitalize()}: ")
    return told[:1].upper() + told[1:]


def resize_advice(report: Report) -> str:
    """Return in a sentence or two how much of the declared rank is used, and what a cut saves."""
    weights = report.weights
    if weights.rank is None or weights.effective_rank is None:
        return "How much of the rank is used could not be measured."
    told = (
        f"Rank {number(weights.rank)} is declared, about {number(weights.effective_rank)} is "
        "used (median over modules)."
    )
    if weights.resize is None:
        return f"{told} What a smaller rank would keep could not be told."
    resize = weights.resize
    if resize.rank >= weights.rank * (1 - _WORTH_SAVING):
        return f"{told} Cutting it would lose something somewhere: keep the rank as it is."
    size = _size_at(report, resize.rank)
    return (
        f"{told} Cutting to rank {resize.rank} keeps {percent(resize.kept)} of the strength and "
        f"makes {file_size(report.lora.file_size)} about {file_size(size)}."
    )


def cuts(report: Report) -> tuple[Cut, ...]:
    """Return what powers of two below the declared rank, and the rank advised, would keep.

    Eckart and Young: the best approximation of rank k keeps the k largest singular values. Empty
    where nothing can be cut or where spectra are missing.
    """
    weights = report.weights
    spectra = [m for m in weights.modules if m.spectrum and m.frobenius]
    if weights.resize is None or weights.rank is None or not spectra:
        return ()
    advised = weights.resize.rank
    longest = max(len(m.spectrum) for m in spectra)
    ranks = {1 << power for power in range(1, 7)} | {advised}
    return tuple(
        _cut(report, spectra, rank, advised=rank == advised)
        for rank in sorted(ranks)
        if rank < weights.rank and rank <= longest
    )


def energy_ranks(weights: WeightsMeasure) -> tuple[float | None, float | None]:
    """Return the medians of k90 and k99 over modules."""
    return _median(m.k90 for m in weights.modules), _median(m.k99 for m in weights.modules)


def strongest(modules: Iterable[ModuleMeasure], count: int) -> list[ModuleMeasure]:
    """Return the modules with the most energy, the strongest first; unmeasured ones come last."""
    return sorted(modules, key=lambda m: -1.0 if m.energy is None else m.energy, reverse=True)[
        :count
    ]


def _severity(finding: Finding) -> tuple[float, str]:
    if _is_open(finding):
        return 0.5, finding.id
    return _SEVERITY.index(finding.result), finding.id


def _is_open(finding: Finding) -> bool:
    return finding.required and finding.result is Result.UNAVAILABLE


def _median(values: Iterable[int | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


def _cut(report: Report, spectra: Sequence[ModuleMeasure], rank: int, *, advised: bool) -> Cut:
    kept = [_kept(module, rank) for module in spectra]
    largest = max(module.frobenius or 0.0 for module in spectra)
    energies = [_square((module.frobenius or 0.0) / largest) for module in spectra]
    left = math.fsum(share * energy for share, energy in zip(kept, energies, strict=True))
    return Cut(
        rank=rank,
        kept=math.sqrt(min(1.0, left / math.fsum(energies))),
        weakest=math.sqrt(min(kept)),
        size=_size_at(report, rank),
        advised=advised,
    )


def _kept(module: ModuleMeasure, rank: int) -> float:
    """Return the share of a module's energy in its first singular values."""
    norm = module.frobenius or 1.0
    return min(1.0, math.fsum(_square(value / norm) for value in module.spectrum[:rank]))


def _square(value: float) -> float:
    return value * value  # which a power would not be for 1e200: it raises


def _size_at(report: Report, rank: int) -> int:
    """Return about how many bytes a file of this rank has; its parameters go with its rank."""
    declared = [m.rank for m in report.weights.modules if m.rank]
    before = sum(declared)
    after = sum(min(rank, own) for own in declared)
    return round(report.lora.file_size * after / before) if before else report.lora.file_size
