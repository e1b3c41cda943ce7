"""What `systemctl status` shows of the daemon, and how it asks for time while it drains."""

from collections.abc import Mapping

from aiohttp import web
from pydantic import ByteSize

from lora_server.errors import LoraServerError
from lora_server.systemd import REPORT_INTERVAL_S
from lora_server.web.keys import CONFIG, DRAIN, LIBRARY

_EXTENSION_USEC = round(6 * REPORT_INTERVAL_S * 1e6)  # some reports may come late


async def report(app: web.Application) -> Mapping[str, str | int]:
    """Return what to tell the service manager now.

    The unit's stop time-out would have to be longer than `server.shutdown_grace`; asking for
    more time as long as uploads are awaited leaves one place where the grace is set.
    """
    uploads = _uploads(app[DRAIN].in_flight)
    if app[DRAIN].leaving:
        grace_s = app[CONFIG].server.shutdown_grace
        status = f"Going down: {uploads} may take up to {grace_s:.0f} s"
        return {"STATUS": status, "EXTEND_TIMEOUT_USEC": _EXTENSION_USEC}
    if LIBRARY not in app:
        return {"STATUS": "Starting: opening the storage and the catalogue"}
    return {"STATUS": f"Serving: {uploads} in flight, {await _free(app)} free"}


def _uploads(number: int) -> str:
    return "1 upload" if number == 1 else f"{number or 'no'} uploads"


async def _free(app: web.Application) -> str:
    try:
        return ByteSize(await app[LIBRARY].store.free_bytes()).human_readable()
    except LoraServerError as error:
        return f"nothing known to be ({error})"
