"""One module's spectrum, by whichever way fits how its update is put together."""

from lora_server.evaluation.weights.composing import Composed, Halves, Kronecker, Rows
from lora_server.evaluation.weights.grams import Watch, gram
from lora_server.evaluation.weights.matrices import Dense, dense, kronecker
from lora_server.evaluation.weights.spectra import Core, Spectrum, precise, solve


def core_of(
    halves: Halves, scale: float, watch_up: Watch | None = None, watch_down: Watch | None = None
) -> Core | None:
    """Return both Gram matrices; None where a half is not finite."""
    down = gram(halves.down, watch_down)
    up = None if down is None else gram(halves.up, watch_up)
    return None if down is None or up is None else Core(down, up, scale, halves.exponent)


def at_once(how: Composed, scale: float, *, short: bool = False) -> Dense | None:
    """Return the spectrum of what waits for no others; None where it is not finite.

    Args:
        how: what has a spectrum.
        scale: the factor before the update, not negative.
        short: the rank is above a width, so that what is r x r is larger than need be.
    """
    if isinstance(how, Kronecker):
        left, right = at_once(how.left, scale), at_once(how.right, 1.0)
        return None if left is None or right is None else kronecker(left, right)
    if isinstance(how, Rows):
        return dense(how.rows, how.width, scale, how.exponent)
    if isinstance(how, Halves):
        core = core_of(how, scale)
        return None if core is None else Dense(_spectrum(how, core, short=short), core.bound)
    return None


def _spectrum(halves: Halves, core: Core, *, short: bool) -> Spectrum:
    if not short:
        spectrum, reliable = solve([core])[0]
        if reliable:
            return spectrum
    return precise(halves.down, halves.up, core)
