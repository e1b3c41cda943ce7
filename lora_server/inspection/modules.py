"""The modules of an adapter: tensors gathered by path, judged and measured one by one."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from lora_server.formats.tensors import Tensor
from lora_server.inspection.families import Family, Signature, refuse_halves, signature
from lora_server.inspection.geometry import Geometry, measure, refined
from lora_server.inspection.paths import LONGEST_PATH, Place, place
from lora_server.inspection.suffixes import split


class Module(NamedTuple):
    """One adapted layer: where it is, what it is, how large, and its alpha tensor."""

    place: Place
    family: Family
    form: str
    is_dora: bool
    geometry: Geometry
    alpha: Tensor | None


@dataclass(frozen=True, slots=True)
class Sorted:
    """All tensors of a file, sorted: parts by module path, plain ones, and repeated parts."""

    parts: Mapping[str, Mapping[str, Tensor]]
    plain: tuple[Tensor, ...]
    repeated: int  # parts that a second named adapter in the same file brings


def sort(tensors: Iterable[Tensor]) -> Sorted:
    """Gather tensors into modules by their names alone."""
    modules: dict[str, dict[str, Tensor]] = {}
    plain = []
    repeated = 0
    for tensor in tensors:
        found = split(tensor.name)
        if found is None:
            plain.append(tensor)
            continue
        path, part = found
        parts = modules.get(path)
        if parts is None:
            modules[path] = {part: tensor}
        elif part in parts:
            repeated += 1
        else:
            parts[part] = tensor
    _adopt(plain, modules)
    return Sorted(modules, tuple(plain), repeated)


def _adopt(plain: list[Tensor], modules: Mapping[str, dict[str, Tensor]]) -> None:
    """Move weights that an `on_input` beside them makes IA3's out of the plain tensors."""
    wanted = {f"{path}.weight": parts for path, parts in modules.items() if "on_input" in parts}
    for tensor in plain if wanted else ():
        if tensor.name in wanted:
            wanted[tensor.name]["weight"] = tensor
    plain[:] = [tensor for tensor in plain if tensor.name not in wanted]


@dataclass(frozen=True, slots=True)
class Modules:
    """The complete modules of a file, and how many alphas or magnitudes stand alone."""

    complete: tuple[Module, ...]
    strays: int


def judge(parts_by_path: Mapping[str, Mapping[str, Tensor]]) -> Modules:
    """Return every module; FileRefused where halves are missing or disagree."""
    signed = [(path, parts, signature(tuple(parts))) for path, parts in parts_by_path.items()]
    refuse_halves({path: tuple(parts) for path, parts, sign in signed if not sign.complete})
    whole = [entry for entry in signed if entry[2].rule.family is not Family.STRAY]
    return Modules(tuple(_module(*entry) for entry in whole), len(signed) - len(whole))


def _module(path: str, parts: Mapping[str, Tensor], sign: Signature) -> Module:
    geometry = measure(path, parts, sign.rule)
    return Module(
        place(path if len(path) <= LONGEST_PATH else path[:LONGEST_PATH]),
        refined(sign.rule, parts, geometry, is_dora=sign.is_dora),
        sign.rule.form,
        sign.is_dora,
        geometry,
        parts.get("alpha"),
    )
