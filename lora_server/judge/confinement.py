"""What a child may not do, told to the kernel: grow, run on, write, fork, gain rights."""

import ctypes
import os
import resource
import signal
from pathlib import Path

MEMORY_BYTES = 1024 * 1024 * 1024
OPEN_FILES = 32
CPU_S = 10.0
CPU_BYTES_PER_S = 50_000_000  # a checksum of the whole file runs at ten times this

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_NO_NEW_PRIVS = 38


def confine() -> None:
    """Limit this process for the rest of its life."""
    # A child ends with its socket. A signal to the whole group or unit is for the server, which
    # lets the jobs at hand come to their end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # Where memory runs out, one file is refused rather than the server killed.
    Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    for limit, value in (
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_NOFILE, OPEN_FILES),
    ):
        resource.setrlimit(limit, (value, value))
    for option, argument in (
        (_PR_SET_PDEATHSIG, signal.SIGKILL),
        (_PR_SET_DUMPABLE, 0),
        (_PR_SET_NO_NEW_PRIVS, 1),
    ):
        _prctl(option, argument)


def budget(fd: int) -> None:
    """Grant the memory and the CPU time of one job on the file `fd`.

    More memory raises MemoryError or ends the process; more time ends it with SIGPROF.
    """
    size = os.fstat(fd).st_size
    # The second opinion maps the file: address space, and no memory of its own.
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES + size, resource.RLIM_INFINITY))
    signal.setitimer(signal.ITIMER_PROF, CPU_S + size / CPU_BYTES_PER_S)


def _prctl(option: int, argument: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, argument, 0, 0, 0):
        raise OSError(ctypes.get_errno(), f"prctl option {option}")
