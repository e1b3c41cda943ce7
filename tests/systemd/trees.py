"""Debian trees and the wheels to install there, made once and kept outside of the repository."""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile

from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent.parent
CACHE = Path(os.environ.get("LORA_SERVER_TEST_CACHE", "~/.cache/lora-server-test")).expanduser()
MIRROR = os.environ.get("DEBIAN_MIRROR", "http://deb.debian.org/debian")
REQUIREMENTS = (ROOT / "requirements/runtime.txt", ROOT / "requirements/build.txt")

_SYSTEM = "systemd,systemd-sysv,dbus,ca-certificates,procps"  # what every host has
_DOCUMENTED = "python3,python3-venv,make,git"  # what the README asks for
_TRIED = "curl,nginx-light,openssl"


@dataclass(frozen=True)
class Debian:
    """A release, and the Python that it ships."""

    name: str
    python: str


RELEASES = {"bookworm": Debian("bookworm", "3.11"), "trixie": Debian("trixie", "3.13")}


def why_not() -> str | None:
    """Return what keeps a Debian from being booted here, if anything does."""
    if os.geteuid() != 0:
        return "only root can boot a machine"
    for program in ("unshare", "nsenter", "systemd-nspawn", "mmdebstrap"):
        if shutil.which(program) is None:
            return f"{program} is not installed (apt-get install systemd-container mmdebstrap)"
    mounting = ("unshare", "--mount", "--propagation", "private", "mount", "-t", "cgroup2")
    tried = subprocess.run((*mounting, "none", "/sys/fs/cgroup"), capture_output=True, text=True)  # noqa: PLW1510 - its failure is the answer
    return f"no control groups can be mounted: {tried.stderr.strip()}" if tried.returncode else None


def tree(debian: Debian) -> Path:
    """Return a Debian as it is after its installation; takes half a minute the first time."""
    packages = f"{_SYSTEM},{_DOCUMENTED},{_TRIED}"
    path = CACHE / f"{debian.name}-{_digest(packages.encode())}"
    if not path.exists():
        part = _fresh(path)
        options = ("--quiet", "--variant=minbase", f"--include={packages}")
        subprocess.run(("mmdebstrap", *options, debian.name, str(part), MIRROR), check=True)
        part.rename(path)
    return path


def wheels(debian: Debian) -> Path:
    """Return a folder with every wheel that the installation takes from the network."""
    wanted = _digest(*(path.read_bytes() for path in REQUIREMENTS))
    path = CACHE / f"wheels-{debian.python}-{wanted}"
    if not path.exists():
        part = _fresh(path)
        command = [sys.executable, "-m", "pip", "download", "-qq", "--no-deps"]
        command += ["--require-hashes", "--only-binary", ":all:"]
        command += ["--python-version", debian.python, "--dest", str(part)]
        with NamedTemporaryFile("w", suffix=".txt") as requirements:
            requirements.writelines(_wanted(debian))
            requirements.flush()
            subprocess.run((*command, "--requirement", requirements.name), check=True)
        part.rename(path)
    return path


def _wanted(debian: Debian) -> Iterator[str]:
    """Yield what is required there; pip would look at the Python that runs it."""
    there = {"python_version": debian.python, "python_full_version": f"{debian.python}.0"}
    for path in REQUIREMENTS:
        for line in path.read_text(encoding="utf-8").replace("\\\n", "").splitlines():
            if line and not line.lstrip().startswith("#"):
                requirement, *hashes = line.split("--hash=")
                wanted = Requirement(requirement)
                if wanted.marker is None or wanted.marker.evaluate(there):
                    wanted.marker = None
                    yield " --hash=".join((str(wanted), *map(str.strip, hashes))) + "\n"


def _fresh(path: Path) -> Path:
    part = path.with_name(f"{path.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.parent.mkdir(parents=True, exist_ok=True)
    if part.name.startswith("wheels"):
        part.mkdir()
    return part


def _digest(*contents: bytes) -> str:
    return hashlib.sha256(b"".join(contents)).hexdigest()[:12]
