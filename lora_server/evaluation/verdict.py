"""Findings become a verdict and the sentence that heads a report."""

from collections.abc import Sequence

from lora_server.evaluation.report import Finding, Result, Verdict

_MARKS = {
    Verdict.PASS: "Pass",
    Verdict.REVIEW: "Review",
    Verdict.FAIL: "Fail",
    Verdict.INCONCLUSIVE: "Inconclusive",
}


def verdict_of(findings: Sequence[Finding]) -> Verdict:
    """Return what the findings make together.

    A fail fails; else a required check that could not be made leaves it inconclusive; else a
    warning, or a check that asks for a person, is a review; else it is a pass.
    """
    results = {finding.result for finding in findings}
    if Result.FAIL in results:
        return Verdict.FAIL
    if any(_is_open(finding) for finding in findings):
        return Verdict.INCONCLUSIVE
    if results & {Result.WARN, Result.REVIEW}:
        return Verdict.REVIEW
    return Verdict.PASS


def headline(findings: Sequence[Finding]) -> str:
    """Return the verdict and its main reason, in one sentence."""
    verdict = verdict_of(findings)
    reasons = [finding for finding in findings if _speaks_for(finding, verdict)]
    if not reasons:
        made = sum(finding.result is not Result.UNAVAILABLE for finding in findings)
        return f"{_MARKS[verdict]}: all {made} checks that could be made came out well."
    more = f" ({len(reasons) - 1} more)" if len(reasons) > 1 else ""
    return f"{_MARKS[verdict]}: {reasons[0].summary.rstrip('.')}{more}."


def _is_open(finding: Finding) -> bool:
    return finding.required and finding.result is Result.UNAVAILABLE


def _speaks_for(finding: Finding, verdict: Verdict) -> bool:
    if verdict is Verdict.INCONCLUSIVE:
        return _is_open(finding)
    results = {
        Verdict.FAIL: {Result.FAIL},
        Verdict.REVIEW: {Result.WARN, Result.REVIEW},
        Verdict.PASS: set[Result](),
    }
    return finding.result in results[verdict]
