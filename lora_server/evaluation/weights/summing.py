"""The whole file from its modules: groups, heat map, resize advice, and the modules themselves."""

import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from lora_server.evaluation.report import (
    Group,
    HeatMap,
    ModuleMeasure,
    Resize,
    WeightsMeasure,
)
from lora_server.evaluation.weights.composing import matrix_shape
from lora_server.evaluation.weights.measuring import Measured
from lora_server.evaluation.weights.quantities import energy_rank
from lora_server.inspection.metadata import text

MAX_MODULES = 5_000
MAX_SPECTRUM = 64
MAX_COLUMNS = 128
KEPT = 0.99  # of every norm, by the rank that is advised
_DIGITS = 6
_PATH_CHARS = 300


def shown(value: float) -> float:
    """Return a number to six significant digits, as reports give them."""
    return float(f"{value:.{_DIGITS}g}")


def maybe(value: float | None) -> float | None:
    """Return `shown` of what is known."""
    return None if value is None else shown(value)


def norms(measured: Sequence[Measured]) -> list[float]:
    """Return each module's Frobenius norm, 0 where it was not measured."""
    return [0.0 if one.numbers is None else one.numbers.frobenius for one in measured]


def shares(values: Sequence[float]) -> tuple[list[float], float]:
    """Return the share of each in the sum of squares, and that sum's root; any range of values."""
    largest = max(values, default=0.0)
    if not largest:
        return [0.0] * len(values), 0.0
    squares = [(value / largest) ** 2 for value in values]
    total = math.fsum(squares)
    return [square / total for square in squares], largest * math.sqrt(total)


def summed(measured: Sequence[Measured]) -> WeightsMeasure:
    """Return the file's measure."""
    energies, frobenius = shares(norms(measured))
    known = [one for one in measured if one.numbers is not None]
    numbers = [one.numbers for one in measured if one.numbers is not None]
    kept = _strongest(energies)
    return WeightsMeasure(
        module_count=len(measured),
        measured_count=len(known),
        partial_count=sum(bool(one.partial) for one in known),
        parameter_count=sum(parameters(one) for one in measured),
        nonfinite_count=sum(one.nonfinite for one in measured),
        zero_count=sum(is_zero(one) for one in measured),
        frobenius=shown(frobenius),
        spectral=shown(max((n.spectral for n in numbers), default=0.0)),
        rank=median(one.module.geometry.rank for one in measured),
        effective_rank=median(n.effective_rank for n in numbers),
        stable_rank=median(n.stable_rank for n in numbers),
        resize=resize(known, energies=shares(norms(known))[0]),
        mean_spectrum=_mean_spectrum(known),
        parts=_groups(measured, energies, lambda one: one.module.position.part),
        groups=_groups(measured, energies, lambda one: one.module.position.group),
        targets=_groups(measured, energies, lambda one: one.module.position.target),
        heat_map=_heat_map(measured, energies),
        modules=tuple(_module(measured[index], energies[index]) for index in kept),
        modules_cut=len(measured) - len(kept),
    )


# Norms of this and less are rounding: such an update does nothing.
ZERO_NORM = 1e-6


def is_zero(one: Measured) -> bool:
    """Whether a module's update does nothing."""
    return one.zero or (one.numbers is not None and one.numbers.spectral <= ZERO_NORM)


def parameters(one: Measured) -> int:
    """Return how many weights a module holds."""
    return sum(tensor.numel for tensor in one.module.weights)


def median(values: Iterable[float | None]) -> float | None:
    """Return the median of what is known; None where nothing is."""
    known = [value for value in values if value is not None]
    return shown(float(np.median(known))) if known else None


def _strongest(energies: Sequence[float]) -> list[int]:
    """Return the positions of the modules that are shown, in file order."""
    if len(energies) <= MAX_MODULES:
        return list(range(len(energies)))
    order = sorted(range(len(energies)), key=lambda index: -energies[index])
    return sorted(order[:MAX_MODULES])


def resize(known: Sequence[Measured], energies: Sequence[float]) -> Resize | None:
    """Return the least rank that keeps KEPT of the norm of every module, and what it keeps.

    None where a spectrum is not known to the end, or where nothing is to be resized.
    """
    spectra = [one.spectrum for one in known if one.spectrum is not None]
    if len(spectra) < len(known) or any(s.cut for s in spectra) or not any(energies):
        return None
    rank = 1
    for spectrum in spectra:
        if spectrum.square_sum:
            least = energy_rank(np.square(spectrum.values), spectrum.square_sum, KEPT**2)
            rank = max(rank, least or spectrum.values.size)
    kept = math.fsum(
        energy * float(np.square(spectrum.values[:rank]).sum()) / spectrum.square_sum
        for energy, spectrum in zip(energies, spectra, strict=True)
        if spectrum.square_sum
    )
    scales = {one.module.scale for one in known}
    alpha = shown(scales.pop() * rank) if len(scales) == 1 else None
    return Resize(rank, alpha, shown(min(1.0, math.sqrt(kept))))


def _mean_spectrum(known: Sequence[Measured]) -> tuple[float, ...]:
    """Return the mean over modules of each singular value over the first."""
    total = np.zeros(MAX_SPECTRUM)
    count = longest = 0
    for one in known:
        if one.spectrum is None or one.zero:
            continue
        values = one.spectrum.values[:MAX_SPECTRUM]
        total[: values.size] += values / values[0]
        longest = max(longest, values.size)
        count += 1
    return tuple(shown(value) for value in (total[:longest] / max(count, 1)).tolist())


def _groups(
    measured: Sequence[Measured], energies: Sequence[float], name_of: Callable[[Measured], str]
) -> tuple[Group, ...]:
    """Return the modules taken together by name, the strongest first."""
    members: dict[str, list[int]] = {}
    for index, one in enumerate(measured):
        members.setdefault(name_of(one), []).append(index)
    groups = [
        _group(name, [measured[i] for i in indices], math.fsum(energies[i] for i in indices))
        for name, indices in members.items()
    ]
    return tuple(sorted(groups, key=lambda group: -group.energy))


def _group(name: str, members: list[Measured], energy: float) -> Group:
    known = [one.numbers for one in members if one.numbers is not None]
    return Group(
        name=name,
        module_count=len(members),
        parameter_count=sum(map(parameters, members)),
        energy=shown(energy),
        frobenius=shown(shares([numbers.frobenius for numbers in known])[1]),
        effective_rank=median(numbers.effective_rank for numbers in known),
        stable_rank=median(numbers.stable_rank for numbers in known),
    )


def _heat_map(measured: Sequence[Measured], energies: Sequence[float]) -> HeatMap:
    """Return energy by target and depth; of too many depths, neighbours share a column."""
    places = sorted(
        {
            (one.module.position.group, one.module.position.depth or 0)
            for one in measured
            if one.module.position.depth is not None
        },
        key=lambda place: (_rank_of(place[0]), place[0], place[1]),
    )
    stride = -(-len(places) // MAX_COLUMNS)
    column_of = {place: index // stride for index, place in enumerate(places)}
    columns = [f"{group} {depth}" for group, depth in places[:: stride or 1]]
    cells: dict[tuple[str, int], float] = {}
    for one, energy in zip(measured, energies, strict=True):
        position = one.module.position
        if position.depth is not None:
            cell = (position.target, column_of[position.group, position.depth])
            cells[cell] = cells.get(cell, 0.0) + energy
    rows = sorted({target for target, _ in cells})
    return HeatMap(
        rows=tuple(rows),
        columns=tuple(columns),
        energy=tuple(
            tuple(maybe(cells.get((row, column))) for column in range(len(columns))) for row in rows
        ),
    )


_ORDER = ("te", "te1", "te2", "te3", "te4", "IN", "MID", "OUT", "double", "single", "blocks")


def _rank_of(group: str) -> int:
    return _ORDER.index(group) if group in _ORDER else len(_ORDER)


def _module(one: Measured, energy: float) -> ModuleMeasure:
    module, numbers = one.module, one.numbers
    geometry, position = module.geometry, module.position
    known = {} if numbers is None else numbers._asdict()
    return ModuleMeasure(
        path=text(module.path, max_chars=_PATH_CHARS),
        family=str(module.family),
        part=position.part,
        group=position.group,
        target=position.target,
        depth=position.depth,
        shape=matrix_shape(module),
        rank=geometry.rank,
        real_rank=known.get("real_rank"),
        alpha=finite(module.alpha),
        scale=finite(module.scale),
        dtype=module.dtype,
        frobenius=maybe(known.get("frobenius")),
        spectral=maybe(known.get("spectral")),
        stable_rank=maybe(known.get("stable_rank")),
        effective_rank=maybe(known.get("effective_rank")),
        participation=maybe(known.get("participation")),
        k90=known.get("k90"),
        k99=known.get("k99"),
        max_entry_bound=maybe(one.bound),
        energy=None if numbers is None else shown(energy),
        spectrum=_spectrum(one),
        partial=one.partial,
    )


def finite(value: float | None) -> float | None:
    """Return `shown` of a number that JSON can carry, else None."""
    return None if value is None or not math.isfinite(value) else shown(value)


def _spectrum(one: Measured) -> tuple[float, ...]:
    if one.spectrum is None:
        return ()
    values = one.spectrum.values[:MAX_SPECTRUM] * one.spectrum.unit
    return tuple(map(shown, values.tolist()))
