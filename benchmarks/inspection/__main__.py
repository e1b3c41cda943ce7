"""Print the rows of the parts that are named, or of all."""

import asyncio
import sys
from collections.abc import Callable, Coroutine, Mapping

from benchmarks.inspection.hostile import hostile_rows
from benchmarks.inspection.reinspection import reinspection_rows
from benchmarks.inspection.row import Row
from benchmarks.inspection.uploads import upload_rows

PARTS: Mapping[str, Callable[[], Coroutine[None, None, list[Row]]]] = {
    "uploads": upload_rows,
    "hostile": hostile_rows,
    "reinspection": reinspection_rows,
}


def main() -> None:
    """Print the rows of the parts that are named, or of all."""
    for part in sys.argv[1:] or PARTS:
        for row in asyncio.run(PARTS[part]()):
            print(f"{row.what:75} {row.figure:>14} {row.aim:>14}", flush=True)


if __name__ == "__main__":
    main()
