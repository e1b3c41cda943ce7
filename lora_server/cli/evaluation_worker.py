"""`lora-server evaluation-worker`: the evaluation worker as a process, or unit, of its own."""

from lora_server.cli.options import ConfigPath
from lora_server.config import load
from lora_server.evaluation.worker.running import run


def evaluation_worker(*, config: ConfigPath = None) -> None:
    """Run the evaluation worker on `[evaluation] worker_socket` until SIGTERM or Ctrl-C."""
    run(load(config))
