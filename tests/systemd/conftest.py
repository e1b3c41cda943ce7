"""One machine for each release, with the server installed as the README says."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.systemd.calls import Caller
from tests.systemd.machine import Machine
from tests.systemd.trees import RELEASES, ROOT, tree, wheels, why_not

SELECTED = os.environ.get("TEST_SYSTEMD_RELEASES", "bookworm trixie").split()
PIP = "[global]\nno-index = true\nfind-links = /wheels\n"
# /data is a disk of its own, as on a real host.
FSTAB = "/disk /data none bind 0 0\n"

if "TEST_SYSTEMD" not in os.environ:
    collect_ignore_glob = ["test_*.py"]
WHY_NOT = why_not() if "TEST_SYSTEMD" in os.environ else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip everything where no machine can be booted; allow for the first one to be made.

    Each machine stays with one worker, so that two releases are tested side by side.
    """
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.timeout(900))
            if isinstance(item, pytest.Function) and hasattr(item, "callspec"):
                item.add_marker(pytest.mark.xdist_group(item.callspec.id))
            if WHY_NOT:
                item.add_marker(pytest.mark.skip(reason=WHY_NOT))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say so where nothing was tested: a skip is easily overlooked."""
    if WHY_NOT:
        terminalreporter.section("THE SYSTEMD UNITS WERE NOT TESTED", sep="!", red=True, bold=True)
        terminalreporter.line(WHY_NOT)


@pytest.fixture(scope="session", params=SELECTED)
def machine(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Machine]:
    """Boot a Debian with a copy of the repository, where `make install` has been run."""
    debian = RELEASES[request.param]
    folder = tmp_path_factory.mktemp(debian.name)
    root = folder / "root"
    subprocess.run(("cp", "-a", "--reflink=auto", str(tree(debian)), str(root)), check=True)
    _copy_repository(root / "root/lora_server")
    (root / "etc/pip.conf").write_text(PIP, encoding="utf-8")
    (root / "etc/fstab").write_text(FSTAB, encoding="utf-8")
    (root / "data").mkdir()
    (folder / "disk").mkdir()
    binds = (f"--bind-ro={wheels(debian)}:/wheels", f"--bind={folder / 'disk'}:/disk")
    booted = Machine(root, binds=binds, log=folder / "console")
    try:
        booted.run("make", "--directory=/root/lora_server", "install")
        yield booted
    finally:
        booted.power_off()
        shutil.rmtree(root)
        shutil.rmtree(folder / "disk")


def _copy_repository(target: Path) -> None:
    """Copy what git has, or would have, as a clone holds it."""
    listing = (
        *("git", "-c", "safe.directory=*"),
        "-C",
        str(ROOT),
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
    )
    for name in subprocess.check_output(listing, text=True).split("\0"):
        if name and (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)


@pytest.fixture(scope="session")
def caller(machine: Machine) -> Caller:
    """Return an admin with a fresh token."""
    return Caller(machine)


@pytest.fixture
def settings(machine: Machine) -> Iterator[Callable[[str, str], None]]:
    """Lend a way to replace text in config.toml; the file is put back, and the server restarted."""
    path = machine.root / "etc/lora-server/config.toml"
    before = path.read_text(encoding="utf-8")

    def replace(old: str, new: str) -> None:
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new), encoding="utf-8")

    yield replace
    path.write_text(before, encoding="utf-8")
    machine.run("systemctl", "reset-failed")
    machine.run("systemctl", "restart", "lora-server.socket", "lora-server.service")


@pytest.fixture
def drop_in(machine: Machine) -> Iterator[Callable[[str, str], None]]:
    """Lend a way to add to a unit; all of it is gone afterwards."""
    added = []

    def add(unit: str, text: str) -> None:
        path = machine.root / f"etc/systemd/system/{unit}.d/test.conf"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
        added.append(path)
        machine.run("systemctl", "daemon-reload")

    yield add
    for path in added:
        path.unlink()
        path.parent.rmdir()
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "restart", "lora-server.socket", "lora-server.service")
