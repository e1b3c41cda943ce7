"""The worker that `lora-server serve` starts for itself: settings come by the environment."""

from lora_server.config import load
from lora_server.evaluation.worker.running import run

run(load(None), until_stdin_closes=True)
