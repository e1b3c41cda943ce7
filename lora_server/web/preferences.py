"""The Prefer header (RFC 7240): how long a client would rather wait than poll."""

import re
from collections.abc import Sequence

MAX_WAIT_S = 300.0
_WAIT = re.compile(r'(?:^|,)\s*wait\s*=\s*"?(\d{1,6})"?\s*(?=$|[,;])', re.IGNORECASE)


def wait_s(headers: Sequence[str]) -> float | None:
    """Return the seconds of the first `wait`, capped; None where there is none.

    A preference that makes no sense is ignored, as the standard says.
    """
    match = _WAIT.search(",".join(headers))
    return min(float(match[1]), MAX_WAIT_S) if match else None
