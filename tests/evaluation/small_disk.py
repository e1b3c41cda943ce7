"""Run as a program, in a mount namespace of its own: write a report to a disk that fills up."""

import json
import sys
from pathlib import Path

from lora_server.errors import LoraServerError
from lora_server.evaluation.reports import REPORT, Reports
from tests.disk_full import LIMIT, mount_small_disk

ID = "ev_" + "0" * 24


def main() -> None:
    """Mount the disk, fill it, and print what came of it as JSON."""
    folder = Path(sys.argv[1])
    mount_small_disk(folder)
    reports = Reports(folder)
    try:
        reports.write(ID, {REPORT: "x" * 2 * LIMIT})
        outcome = "written"
    except LoraServerError as error:
        outcome = type(error).__name__
    left = [path.name for path in folder.iterdir()]
    reports.write(ID, {REPORT: "x"})
    after = reports.read(ID, REPORT) == b"x"
    sys.stdout.write(json.dumps({"outcome": outcome, "left": left, "after": after}))


if __name__ == "__main__":
    main()
