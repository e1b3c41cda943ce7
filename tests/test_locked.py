"""What `make run` and `make test` install: the lock files against what setup.py asks for."""

import ast
import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def _asked_for(*keywords: str) -> Iterator[str]:
    """Yield the distributions in these arguments of `setup`, by their normalised names."""
    tree = ast.parse((ROOT / "setup.py").read_text(encoding="utf-8"))
    for keyword in (node for node in ast.walk(tree) if isinstance(node, ast.keyword)):
        if keyword.arg in keywords:
            value = ast.literal_eval(keyword.value)
            lists = [value] if isinstance(value, list) else value.values()
            for requirement in itertools.chain(*lists):
                name = re.split(r"[^A-Za-z0-9._-]", requirement)[0]
                yield re.sub(r"[-_.]+", "-", name).lower()


@pytest.mark.parametrize(
    ("lock", "keywords"),
    [
        ("runtime.txt", ["install_requires"]),
        ("test.txt", ["install_requires", "extras_require"]),
    ],
)
def test_whatever_is_asked_for_is_locked(lock: str, keywords: list[str]) -> None:
    """A dependency that the lock has forgotten is missing only on a machine that starts fresh."""
    text = (ROOT / "requirements" / lock).read_text(encoding="utf-8")
    locked = set(re.findall(r"^([a-z0-9][a-z0-9._-]*)==", text, re.MULTILINE))
    assert locked
    assert set(_asked_for(*keywords)) - locked == set()
