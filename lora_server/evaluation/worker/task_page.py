"""The task `page`: a report as a page for people."""

import os
from collections.abc import Sequence

from lora_server.evaluation import schema
from lora_server.evaluation.page import render
from lora_server.evaluation.worker.tasks import Answer, Progress
from lora_server.judge.reading import read_at


def run(fds: Sequence[int], progress: Progress) -> Answer:
    """Render the report that the one file holds; the text is HTML."""
    (fd,) = fds
    progress(0.0, "drawing the page")
    return Answer({}, render(schema.read(read_at(fd, 0, os.fstat(fd).st_size))))
