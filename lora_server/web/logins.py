"""Who calls from where, and how often an address may fail to log in."""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

from limits import RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import FixedWindowRateLimiter

from lora_server.config import Networks
from lora_server.errors import TooManyFailures

Address = IPv4Address | IPv6Address

_WINDOW_S = 60


def client_address(peer: str | None, forwarded: Sequence[str], trusted: Networks) -> str:
    """Return the address of the client, as far as the hops on the way can be trusted.

    `forwarded` holds the values of X-Forwarded-For. They are read from the right, as each
    trusted proxy appends the address that it saw; the first one that is not a trusted proxy
    is the client. What stands further left is whatever the client liked to send.
    """
    hops = [hop.strip() for value in forwarded for hop in value.split(",")]
    address = _parsed(peer)
    while address and hops and any(address in network for network in trusted):
        hop = _parsed(hops.pop())
        if hop is None:
            break  # what stands left of it was not seen by anyone we trust
        address = hop
    return str(address) if address else "local"


def _parsed(text: str | None) -> Address | None:
    try:
        address = ip_address(text or "")
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


class FailedLogins:
    """Counts failures per address; an IPv6 client owns a /64, so that counts as one."""

    def __init__(self, per_minute: int) -> None:
        self._limit = RateLimitItemPerMinute(per_minute)
        self._limiter = FixedWindowRateLimiter(MemoryStorage())

    async def count(self, address: str) -> None:
        """Count one failure.

        Raises:
            TooManyFailures: there were too many within a minute.

        """
        if not await self._limiter.hit(self._limit, _counted_as(address)):
            raise TooManyFailures(_WINDOW_S)


def _counted_as(address: str) -> str:
    parsed = _parsed(address)
    return (
        str(IPv6Network((parsed, 64), strict=False)) if isinstance(parsed, IPv6Address) else address
    )
