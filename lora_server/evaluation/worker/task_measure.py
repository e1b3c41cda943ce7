"""The task `measure`: the weights of one file, and whose sketches are nearest to its own."""

import base64
import os
import time
from collections.abc import Sequence

from lora_server.evaluation.report import Stage
from lora_server.evaluation.weights.evaluating import evaluate
from lora_server.evaluation.weights.sketches import nearest
from lora_server.evaluation.worker import measured
from lora_server.evaluation.worker.tasks import Answer, Progress
from lora_server.judge.reading import read_at


def run(fds: Sequence[int], progress: Progress, *, extension: str, count: int) -> Answer:
    """Measure the first file; the second one holds the sketches of others, end to end.

    The facts are the sketch (base64), the features, and the positions of at most `count` nearest
    sketches, best first; the text is what `measured.read` takes.
    """
    file, bundle = fds
    began = time.monotonic()
    result = evaluate(file, extension, progress)
    seconds = time.monotonic() - began
    sketches = read_at(bundle, 0, os.fstat(bundle).st_size)
    near = nearest(result.sketch, sketches, count)
    sketch = base64.b64encode(result.sketch).decode()
    text = measured.write(
        measured.Measured(
            measure=result.measure,
            findings=result.findings,
            features=dict(result.features),
            sketch=sketch,
            stages=(Stage("weights", round(seconds, 3)),),
        )
    )
    facts = {
        "sketch": sketch,
        "features": dict(result.features),
        "nearest": [estimate.position for estimate in near],
    }
    return Answer(facts, text)
