"""The shape of the package: what may import what, and how large a module may grow."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import lora_server

ROOT = Path(lora_server.__file__).parent
MODULES = {
    ".".join(("lora_server", *path.relative_to(ROOT).with_suffix("").parts)): path
    for path in sorted(ROOT.rglob("*.py"))
}
MAX_LINES = 300

# From the bottom to the top: a module imports from its own layer and from those above it here.
# The longest name that fits says where a module belongs.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("lora_server.__init__", "lora_server.uninterrupted"),
    ("lora_server.errors", "lora_server.records"),
    (
        "lora_server.config",
        "lora_server.names",
        "lora_server.filesystem",
        "lora_server.formats",
        "lora_server.journal",
        "lora_server.systemd",
    ),
    ("lora_server.inspection", "lora_server.moves", "lora_server.backlog"),
    ("lora_server.judge",),
    ("lora_server.evaluation.report",),
    ("lora_server.evaluation",),
    ("lora_server.jwt_keys", "lora_server.revocations", "lora_server.layout", "lora_server.logs"),
    (
        "lora_server.tokens",
        "lora_server.staging",
        "lora_server.catalog",
        "lora_server.ownership",
        "lora_server.looking",
        "lora_server.watching",
    ),
    ("lora_server.store", "lora_server.door"),
    ("lora_server.library", "lora_server.reinspect", "lora_server.evaluation.worker.running"),
    ("lora_server.evaluation.worker.__main__",),
    (
        "lora_server.ingest",
        "lora_server.preflight",
        "lora_server.reconcile",
        "lora_server.evaluation.outcomes",
        "lora_server.evaluation.surroundings",
        "lora_server.evaluation.weights_tier",
        "lora_server.evaluation.evaluator",
        "lora_server.evaluation.after_upload",
        "lora_server.evaluation.health",
        "lora_server.evaluation.service",
        "lora_server.fingerprints",
    ),
    ("lora_server.web", "lora_server.client"),
    ("lora_server.cli", "lora_server.__main__"),
)
AS_PARAMS = [pytest.param(name, id=name.removeprefix("lora_server.")) for name in MODULES]
BANNED_NAMES = {"utils", "util", "common", "manager", "base", "models", "helpers", "misc"}


def layer(module: str) -> int | None:
    """Return how high a module stands; None where nobody has said."""
    fits = [
        (len(prefix), height)
        for height, prefixes in enumerate(LAYERS)
        for prefix in prefixes
        if f"{module}.".startswith(f"{prefix}.")
    ]
    return max(fits)[1] if fits else None


def tree(module: str) -> ast.Module:
    """Return a module's syntax tree."""
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


def imports(module: str) -> Iterator[str]:
    """Yield every module that is imported anywhere in a module, also inside functions."""
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module} imports relatively"
            source = node.module or ""
            for alias in node.names:
                whole = f"{source}.{alias.name}"
                known = whole in MODULES or f"{whole}.__init__" in MODULES
                yield whole if known else source


def own(module: str) -> Iterator[str]:
    """Yield the modules of this package that a module imports."""
    return (name for name in imports(module) if name.startswith("lora_server."))


@pytest.mark.parametrize("module", AS_PARAMS)
def test_every_module_has_its_layer(module: str) -> None:
    """Who adds a module says where it belongs."""
    assert layer(module) is not None


@pytest.mark.parametrize("module", AS_PARAMS)
def test_imports_point_downward(module: str) -> None:
    """Nothing knows what is built on top of it."""
    height = layer(module)
    assert height is not None

    assert [name for name in own(module) if (layer(name) or 0) > height] == []


def test_every_layer_is_in_use() -> None:
    """The list of layers names no module that is gone."""
    prefixes = [prefix for names in LAYERS for prefix in names]

    assert [p for p in prefixes if not any(f"{m}.".startswith(f"{p}.") for m in MODULES)] == []


def test_modules_do_not_import_each_other_in_circles() -> None:
    """Within a layer, too, one can say which module comes first."""
    edges = {module.removesuffix(".__init__"): set(own(module)) for module in MODULES}
    while leaves := [name for name, targets in edges.items() if not targets & edges.keys()]:
        for name in leaves:
            del edges[name]

    assert edges == {}


@pytest.mark.parametrize("module", AS_PARAMS)
def test_only_web_serves(module: str) -> None:
    """The rest would run unchanged behind another HTTP server."""
    serving = [
        name for name in imports(module) if name == "aiohttp.web" or name.startswith("aiohttp.web_")
    ]
    attribute = re.search(r"from aiohttp import .*\bweb\b", MODULES[module].read_text("utf-8"))

    assert module.startswith("lora_server.web.") or not (serving or attribute)


@pytest.mark.parametrize("module", AS_PARAMS)
def test_the_core_knows_no_http(module: str) -> None:
    """Only the web package and the command line's client import aiohttp at all."""
    outside = module.startswith(("lora_server.web.", "lora_server.cli.", "lora_server.client"))

    assert outside or not any(name.split(".")[0] == "aiohttp" for name in imports(module))


@pytest.mark.parametrize("module", AS_PARAMS)
def test_names_say_something(module: str) -> None:
    """No module is a drawer for odds and ends, and `models` would mean weights."""
    assert not set(module.split(".")) & BANNED_NAMES


@pytest.mark.parametrize("module", AS_PARAMS)
def test_modules_stay_small(module: str) -> None:
    """A module can be read at one sitting."""
    assert len(MODULES[module].read_text(encoding="utf-8").splitlines()) <= MAX_LINES


def broad_handlers() -> list[str]:
    """Return the modules, once for each `except` that catches just about anything."""
    found = []
    for module in MODULES:
        for node in ast.walk(tree(module)):
            if isinstance(node, ast.ExceptHandler):
                caught = ast.unparse(node.type) if node.type else "BaseException"
                if {"Exception", "BaseException"} & set(re.findall(r"\w+", caught)):
                    found.append(module)
    return found


def test_unknown_errors_are_caught_in_one_place() -> None:
    """Only the outermost middleware catches what nobody foresaw."""
    assert broad_handlers() == ["lora_server.web.middlewares"]
