"""Names for the tensors of a checkpoint: nested collections become dotted paths.

Collections may be shared, so what is bounded is the number of visits, not of values.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from lora_server.errors import FileRefused
from lora_server.formats.excerpt import excerpt
from lora_server.formats.pickle_values import is_dict
from lora_server.formats.refusals import CORRUPT, NO_TENSORS, TOO_COMPLEX
from lora_server.formats.torch_objects import View

MAX_DEPTH = 32
MAX_VISITS = 1_000_000
MIN_VISITS = 20_000  # what the smallest file may cost, and a visit more for every four bytes
MAX_TENSORS = 100_000
MAX_NAME_BYTES = 512
MAX_METADATA_BYTES = 1024 * 1024  # keys and values together

STATE_DICT = "state_dict"

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


@dataclass(slots=True)
class Contents:
    """What a checkpoint holds, by dotted path and in file order."""

    views: dict[str, View] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)  # tensors beside the state dict


def contents(root: object, file_size: int) -> Contents:
    """Return the tensors under `state_dict` if the root has one, else all of them.

    A file of `file_size` bytes may make the walk so long and no longer: collections that are
    shared many times cost few bytes.

    Strings and numbers that dictionaries hold become metadata, wherever they stand.
    """
    walker = _Walker(min(MAX_VISITS, MIN_VISITS + file_size // 4))
    found = Contents()
    inner = root.get(STATE_DICT) if isinstance(root, dict) else None
    if isinstance(root, dict) and isinstance(inner, dict):
        outer = {key: value for key, value in root.items() if key != STATE_DICT}
        rest = Contents()
        walker.collect(outer, rest)
        found.metadata, found.left_out = rest.metadata, list(rest.views)
        root = inner
    walker.collect(root, found)
    if not found.views:
        raise FileRefused(NO_TENSORS, "the checkpoint holds no named tensor")
    return found


class _Walker:
    def __init__(self, max_visits: int) -> None:
        self.max_visits = max_visits
        self.visits = 0
        self.metadata_bytes = 0

    def collect(self, root: object, found: Contents) -> None:
        for path, leaf in self._leaves(root):
            if path in found.views or path in found.metadata:
                raise FileRefused(CORRUPT, f"two values are both named {excerpt(path)}")
            if isinstance(leaf, View):
                found.views[path] = leaf
            else:
                self._note(path, str(leaf), found.metadata)
            if len(found.views) > MAX_TENSORS:
                raise FileRefused(TOO_COMPLEX, f"more than {MAX_TENSORS} tensors")

    def _note(self, path: str, text: str, metadata: dict[str, str]) -> None:
        self.metadata_bytes += len(path.encode()) + len(text.encode())
        if self.metadata_bytes > MAX_METADATA_BYTES:
            reason = f"more than {MAX_METADATA_BYTES} bytes of strings beside the tensors"
            raise FileRefused(TOO_COMPLEX, reason)
        metadata[path] = text

    def _leaves(self, root: object) -> Iterator[tuple[str, object]]:
        """Yield tensors, and what dictionaries hold of strings and numbers, with their paths."""
        path = [_Level("", root)]
        while path:
            key, value = next(path[-1].items, (None, None))
            if key is None:
                path.pop()
                continue
            self.visits += 1
            if self.visits > self.max_visits:
                reason = f"more than {self.max_visits} values in collections"
                raise FileRefused(TOO_COMPLEX, reason)
            if _items(value) is not None:
                _check_descent(path, value)
                path.append(_Level(path[-1].name(key) + ".", value))
            elif isinstance(value, View) or (path[-1].keyed and type(value) in {str, int, float}):
                yield path[-1].name(key), value


class _Level:
    """One collection on the way down, and what is left to visit of it."""

    def __init__(self, prefix: str, value: object) -> None:
        self.prefix = prefix
        self.value = value
        self.items = _items(value) or iter(())
        self.keyed = is_dict(value)

    def name(self, key: str) -> str:
        """Return the dotted path of an item, checked as a tensor name."""
        if len(key) > MAX_NAME_BYTES or len((self.prefix + key).encode()) > MAX_NAME_BYTES:
            raise FileRefused(TOO_COMPLEX, f"a name of more than {MAX_NAME_BYTES} bytes")
        if not self.prefix + key or _CONTROL.search(key):
            reason = f"{excerpt(self.prefix + key)} is empty or has control characters: no name"
            raise FileRefused(CORRUPT, reason)
        return self.prefix + key


def _items(value: object) -> Iterator[tuple[str, object]] | None:
    if isinstance(value, Mapping):
        return ((str(key), item) for key, item in value.items())
    if isinstance(value, list | tuple):
        return ((str(index), item) for index, item in enumerate(value))
    return None


def _check_descent(path: list[_Level], value: object) -> None:
    if any(level.value is value for level in path):
        raise FileRefused(CORRUPT, "a collection contains itself")
    if len(path) >= MAX_DEPTH:
        raise FileRefused(TOO_COMPLEX, f"collections nested more than {MAX_DEPTH} deep")
