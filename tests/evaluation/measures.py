"""Measures without weights: modules with made-up but consistent numbers, and their sums."""

import math
from collections.abc import Iterable
from dataclasses import replace
from statistics import median

from lora_server.evaluation.report import Group, HeatMap, ModuleMeasure, Resize, WeightsMeasure

DEPTHS = ("IN 4", "IN 5", "IN 7", "IN 8", "MID 0", "OUT 0", "OUT 1", "OUT 2", "OUT 3", "OUT 4")
TARGETS = ("attention", "cross attention", "feed-forward", "projection")
SHARPNESS = (0.09, 0.2, 0.35, 0.5)  # how fast a target's spectrum falls
RANK = 64


def spectrum(strength: float, sharpness: float) -> tuple[float, ...]:
    """Return singular values that fall exponentially onto a floor."""
    return tuple(strength * (math.exp(-sharpness * k) + 2e-4) for k in range(RANK))


def energy_rank(values: tuple[float, ...], share: float) -> int:
    """Return how many values hold `share` of the squares."""
    goal, total = share * sum(v * v for v in values), 0.0
    for count, value in enumerate(values, 1):
        total += value * value
        if total >= goal:
            return count
    return len(values)


def module(
    path: str, target: str, depth: int, *, strength: float, sharpness: float
) -> ModuleMeasure:
    """Return a module that was measured in full; its energy is not yet a share."""
    values = spectrum(strength, sharpness)
    squares = [v * v for v in values]
    total = sum(squares)
    shares = [s / total for s in squares]
    return ModuleMeasure(
        path=path,
        family="LoRA",
        part="te1" if path.startswith("lora_te1") else "denoiser",
        group=DEPTHS[depth % len(DEPTHS)].split()[0],
        target=target,
        depth=depth,
        shape=(1280, 1280),
        rank=RANK,
        real_rank=RANK,
        alpha=RANK / 2,
        scale=0.5,
        dtype="bf16",
        frobenius=math.sqrt(total),
        spectral=values[0],
        stable_rank=total / squares[0],
        effective_rank=math.exp(-sum(p * math.log(p) for p in shares)),
        participation=total**2 / sum(s * s for s in squares),
        k90=energy_rank(values, 0.90),
        k99=energy_rank(values, 0.99),
        max_entry_bound=strength / 3,
        energy=total,
        spectrum=values,
    )


def group(name: str, modules: Iterable[ModuleMeasure]) -> Group:
    """Return modules taken together."""
    members = list(modules)
    ranks = [m.effective_rank for m in members if m.effective_rank is not None]
    stable = [m.stable_rank for m in members if m.stable_rank is not None]
    return Group(
        name=name,
        module_count=len(members),
        parameter_count=sum((m.rank or 0) * sum(m.shape or (0, 0)) for m in members),
        energy=sum(m.energy or 0.0 for m in members),
        frobenius=math.sqrt(sum((m.frobenius or 0.0) ** 2 for m in members)),
        effective_rank=median(ranks) if ranks else None,
        stable_rank=median(stable) if stable else None,
    )


def groups(modules: Iterable[ModuleMeasure], attribute: str) -> tuple[Group, ...]:
    """Return the modules by an attribute of theirs, in order of appearance."""
    by_name: dict[str, list[ModuleMeasure]] = {}
    for item in modules:
        by_name.setdefault(getattr(item, attribute), []).append(item)
    return tuple(group(name, members) for name, members in by_name.items())


def measured(modules: Iterable[ModuleMeasure], *, cut: int = 0) -> WeightsMeasure:
    """Return what the modules amount to as a file."""
    raw = list(modules)
    total = sum(m.energy or 0.0 for m in raw) or 1.0
    members = tuple(replace(m, energy=None if m.energy is None else m.energy / total) for m in raw)
    whole = group("all", members)
    spectra = [m.spectrum for m in members if m.spectrum]
    return WeightsMeasure(
        module_count=len(members) + cut,
        measured_count=len(spectra) + cut,
        partial_count=sum(bool(m.partial) for m in members),
        parameter_count=whole.parameter_count,
        nonfinite_count=sum("NaN" in m.partial for m in members),
        zero_count=0,
        frobenius=whole.frobenius,
        spectral=max((m.spectral or 0.0 for m in members), default=0.0),
        rank=float(median(m.rank or 0 for m in members)) if members else None,
        effective_rank=whole.effective_rank,
        stable_rank=whole.stable_rank,
        resize=Resize(rank=24, alpha=12.0, kept=0.9941) if spectra else None,
        mean_spectrum=mean_spectrum(spectra),
        parts=groups(members, "part"),
        groups=groups(members, "group"),
        targets=groups(members, "target"),
        heat_map=heat_map(members),
        modules=members,
        modules_cut=cut,
    )


def mean_spectrum(spectra: list[tuple[float, ...]]) -> tuple[float, ...]:
    """Return the mean of spectra, each over its first."""
    count, length = len(spectra), max(map(len, spectra), default=0)
    padded = [(*s, *[0.0] * (length - len(s))) for s in spectra]
    return tuple(sum(s[k] / s[0] for s in padded) / count for k in range(length))


def heat_map(modules: Iterable[ModuleMeasure]) -> HeatMap:
    """Return the energy of targets over depths."""
    cells: dict[tuple[str, int], float] = {}
    for item in modules:
        if item.part == "denoiser" and item.depth is not None and item.energy is not None:
            key = (item.target, item.depth % len(DEPTHS))
            cells[key] = cells.get(key, 0.0) + item.energy
    rows = tuple(dict.fromkeys(target for target, _ in cells))
    return HeatMap(
        rows=rows,
        columns=DEPTHS if rows else (),
        energy=tuple(
            tuple(cells.get((row, column)) for column in range(len(DEPTHS))) for row in rows
        ),
    )


def sdxl_modules(count: int = 72) -> list[ModuleMeasure]:
    """Return modules with names as kohya writes them, over all depths and targets."""
    found = []
    for index in range(count):
        depth, kind = index % len(DEPTHS), (index // len(DEPTHS)) % len(TARGETS)
        if (depth, kind) == (4, 3):
            kind = 0  # the middle block has no projection: the heat map has a hole
        path = (
            f"lora_unet_input_blocks_{depth}_1_transformer_blocks_{index}_"
            f"{TARGETS[kind].replace(' ', '_').replace('-', '_')}_to_out_0"
        )
        strength = 0.4 + 1.2 * math.exp(-(((depth - 6) / 2.5) ** 2)) * (1 + kind / 3)
        found.append(
            module(path, TARGETS[kind], depth, strength=strength, sharpness=SHARPNESS[kind])
        )
    text = "lora_te1_text_model_encoder_layers_{}_mlp_fc1"
    found += [
        module(text.format(n), "text encoder feed-forward", n, strength=0.3, sharpness=0.3)
        for n in range(6)
    ]
    return found
