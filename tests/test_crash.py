"""Killed at any step of any operation, the daemon starts again and every promise holds."""

import asyncio
import json
import sys
from pathlib import Path

import pytest

from lora_server.reconcile import Reconciler
from tests.invariants import assert_sound
from tests.libraries import opened_library, storage_in
from tests.open_door import OpenDoor
from tests.steps import ACKNOWLEDGED, OPERATIONS, UNHEARD, deleters, knowledge


async def crashed(folder: Path, operation: str) -> list[str]:
    """Let a child die at every step of an operation; returns the steps."""
    command = (sys.executable, "-m", "tests.crashing", str(folder), operation)
    child = await asyncio.create_subprocess_exec(*command)
    assert await child.wait() == 0
    steps: list[str] = json.loads((folder / "steps").read_text())
    return steps


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_a_kill_at_any_step_breaks_no_promise(tmp_path: Path, operation: str) -> None:
    """Acknowledged files are there, nothing partial is, and what is known of them is kept."""
    steps = await crashed(tmp_path, operation)

    assert len(steps) >= (4 if operation == "purge" else 7)
    for number, step in enumerate(steps):
        storage = storage_in(tmp_path / str(number))
        async with opened_library(storage) as library:
            await Reconciler(
                library, OpenDoor()
            ).compare_all()  # as at every start; it reads nothing yet
            known, deleted_by = await knowledge(library), await deleters(library)

        assert known == {("tester", "upload", "ink.safetensors")}, step
        assert deleted_by <= {"admin"}, step
        assert_sound(storage, acknowledged=ACKNOWLEDGED[operation], sent=UNHEARD[operation])
