"""The evaluation of one file by its weights alone: read, measure, sum up, check."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

from lora_server.evaluation.report import Finding, WeightsMeasure
from lora_server.evaluation.weights.adapted import contents
from lora_server.evaluation.weights.checks import checks
from lora_server.evaluation.weights.declarations import declaration_checks
from lora_server.evaluation.weights.features import features
from lora_server.evaluation.weights.measuring import loose_nonfinite, measure
from lora_server.evaluation.weights.reading import Reader
from lora_server.evaluation.weights.sketches import Sketcher
from lora_server.evaluation.weights.summing import summed
from lora_server.judge.reading import read_at, whole_table

Progress = Callable[[float, str], None]


@dataclass(frozen=True, slots=True)
class WeightsResult:
    """What the weights tell, and what other LoRAs are compared by."""

    measure: WeightsMeasure
    findings: tuple[Finding, ...]
    sketch: bytes
    features: Mapping[str, float]


def evaluate(fd: int, extension: str, progress: Progress) -> WeightsResult:
    """Evaluate the file behind a descriptor.

    Args:
        fd: an open file; read by offset, its position is left alone.
        extension: what the file is called by, lower case, with its dot.
        progress: told the share done, 0 to 1, and what is being done.

    Raises:
        FileRefused: the file is none that the door lets in, or became shorter meanwhile.
    """
    progress(0.0, "reading the header")
    table = whole_table(fd, extension)
    found = contents(table, partial(read_at, fd))
    reader = Reader(fd, table)
    found = replace(found, nonfinite=loose_nonfinite(reader, found))
    sketcher = Sketcher()
    measured = measure(
        reader, found, sketcher, lambda share, what: progress(0.05 + 0.9 * share, what)
    )
    progress(0.95, "summing up")
    summary = summed(measured)
    findings = (
        *checks(found, measured, summary),
        *declaration_checks(found, measured, summary),
    )
    result = WeightsResult(
        measure=summary,
        findings=tuple(sorted(findings, key=lambda finding: finding.id)),
        sketch=sketcher.finish(summary.frobenius),
        features=features(summary),
    )
    progress(1.0, "done")
    return result
