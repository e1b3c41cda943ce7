"""The worker that `lora-server serve` starts for itself: settings come by the environment."""

import contextlib
import select
import sys

from lora_server.config import load
from lora_server.evaluation.worker.running import run

config = load(None)
run(config, until_stdin_closes=True)
if select.select([sys.stdin], (), (), 0)[0] and config.evaluation.worker_socket:
    with contextlib.suppress(OSError):  # a server that was killed has left the socket's folder
        config.evaluation.worker_socket.parent.rmdir()
