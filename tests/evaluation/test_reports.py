"""Reports on disk: there whole or not at all."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lora_server.evaluation.reports import PAGE, REPORT, Reports

ID = "ev_" + "0" * 24


def test_a_report_is_read_as_it_was_written(tmp_path: Path) -> None:
    """Both files are there, and nothing else."""
    reports = Reports(tmp_path / "evaluations")
    reports.write(ID, {REPORT: '{"ä": 1}', PAGE: "<p>"})

    assert reports.read(ID, REPORT) == '{"ä": 1}'.encode()
    assert reports.read(ID, PAGE) == b"<p>"
    assert sorted(path.name for path in tmp_path.rglob("*")) == sorted(
        ["evaluations", ID, REPORT, PAGE]
    )


def test_a_second_try_replaces_the_first(tmp_path: Path) -> None:
    """An evaluation that is taken up again after its report was written writes it again."""
    reports = Reports(tmp_path)
    (tmp_path / f"{ID}.part").mkdir()
    reports.write(ID, {REPORT: "old", PAGE: "old"})
    reports.write(ID, {REPORT: "new"})

    assert (reports.read(ID, REPORT), reports.read(ID, PAGE)) == (b"new", None)
    assert [path.name for path in tmp_path.iterdir()] == [ID]


def test_what_is_removed_is_gone(tmp_path: Path) -> None:
    """Removing twice is no error."""
    reports = Reports(tmp_path)
    reports.write(ID, {REPORT: "x"})
    (tmp_path / f"{ID}.part").mkdir()  # of a try that the server did not survive
    reports.remove(ID)
    reports.remove(ID)

    assert reports.read(ID, REPORT) is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("hostile", ["../../etc", "ev_", "ev_" + "0" * 23 + "/", ""])
def test_only_ids_name_folders(tmp_path: Path, hostile: str) -> None:
    """No path is made of what is no id."""
    with pytest.raises(ValueError, match="no id"):
        Reports(tmp_path).read(hostile, REPORT)


def test_a_full_disk_keeps_nothing_of_it(tmp_path: Path) -> None:
    """A report that does not fit is told as that and leaves no byte; a smaller one fits then."""
    alone = ["unshare", "--mount", *(["--map-root-user"] if os.geteuid() else [])]
    done = subprocess.run(
        [*alone, sys.executable, "-m", "tests.evaluation.small_disk", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"outcome": "StorageFull", "left": [], "after": True}
