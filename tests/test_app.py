"""The application as a whole: it starts, and it stops."""

import asyncio
from pathlib import Path

from tests.server import make_config, running


async def test_stopping_at_once_leaves_nothing_running(tmp_path: Path) -> None:
    """Work in the background has let go of the catalogue before that is closed."""
    before = asyncio.all_tasks()
    for number in range(5):
        async with running(make_config(tmp_path / str(number))):
            pass

        assert asyncio.all_tasks() <= before
