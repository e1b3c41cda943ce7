"""A worker that no signal but the last one ends; run as `python -m`."""

import os
import signal
import time
from pathlib import Path

if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    path = Path(os.environ["LORA_SERVER_EVALUATION__WORKER_SOCKET"])
    path.with_suffix(".tmp").write_text(str(os.getpid()), encoding="utf-8")
    path.with_suffix(".tmp").rename(path)
    time.sleep(600)
