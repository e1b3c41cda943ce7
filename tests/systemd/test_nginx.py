"""The server behind nginx, by the site file that is shipped."""

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any

import aiohttp
import pytest

from tests.systemd.calls import MULTIPART, Caller, HeldUpload, form
from tests.systemd.machine import Machine

DIRECT = "http://127.0.0.1:8080"
NGINX = "https://127.0.0.1"
MEBIBYTE = 1024 * 1024
DOC = "/usr/share/doc/lora-server/examples"
CERTIFICATE = (
    "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj /CN=x"
    " -keyout /etc/ssl/private/loras.example.key -out /etc/ssl/certs/loras.example.pem"
)
Replace = Callable[[str, str], None]


@pytest.fixture
def nginx(machine: Machine, settings: Replace) -> Iterator[None]:
    """Run nginx as the site file and tls-proxy.conf say."""
    folder = "/etc/systemd/system/lora-server.socket.d"
    settings("trusted_proxies = []", 'trusted_proxies = ["127.0.0.1/32", "::1/128"]')
    machine.shell(
        f"{CERTIFICATE} 2>/dev/null;"
        f"cp {DOC}/nginx.conf /etc/nginx/sites-available/lora-server;"
        "ln -sf ../sites-available/lora-server /etc/nginx/sites-enabled/lora-server;"
        f"mkdir -p {folder}; cp {DOC}/tls-proxy.conf {folder}/; systemctl daemon-reload;"
        "systemctl restart lora-server.socket lora-server.service nginx"
    )
    yield
    machine.shell(f"systemctl stop nginx; rm -r {folder}; systemctl daemon-reload")


@pytest.mark.usefixtures("nginx")
def test_uploads_stream_through(machine: Machine, caller: Caller) -> None:
    """A body reaches the server while it is sent, and never nginx's disk; the client is known."""

    async def half_sent(
        client: aiohttp.ClientSession,
    ) -> tuple[str, str, Any]:
        upload = HeldUpload(client, form("proxied", 200 * MEBIBYTE), NGINX)
        await upload.waiting()
        await asyncio.sleep(0.5)
        staged = await asyncio.to_thread(
            machine.shell, "du -sm /data/staging/loras | cut -f1; find /var/lib/nginx -type f"
        )
        upload.let_through()
        answer = await upload.answer
        megabytes, *buffered = staged.splitlines()
        return megabytes, "".join(buffered), answer

    megabytes, buffered, (status, stored) = caller.calls(half_sent)
    told = machine.journal(f"LORA_SHA256={stored['sha256']}", "LORA_EVENT=upload")

    assert status == 200
    assert int(megabytes) > 150
    assert buffered == ""
    assert told[-1]["LORA_REMOTE"] == "127.0.0.7"


@pytest.mark.usefixtures("nginx")
def test_what_early_answers_cost_behind_nginx(machine: Machine) -> None:
    """Nginx says `100 Continue` by itself, so that a refused body may have begun; no more."""
    (machine.root / "root/body").write_bytes(form("refused", 200 * MEBIBYTE))
    sent = {origin: _sent_in_vain(machine, origin) for origin in (DIRECT, NGINX)}

    assert sent[DIRECT] == (401, 0)
    assert sent[NGINX][0] == 401
    assert sent[NGINX][1] < 100 * MEBIBYTE


def _sent_in_vain(machine: Machine, origin: str) -> tuple[int, int]:
    """Upload without a token; returns the status, and how many bytes of the body were sent."""
    printed = machine.run(
        *("curl", "-sk", "-o", "/dev/null", "-w", "%{json}", "--http1.1"),
        *("-H", f"Content-Type: {MULTIPART['Content-Type']}", "-H", "Expect: 100-continue"),
        *("--data-binary", "@/root/body", f"{origin}/api/v1/lora/upload"),
    )
    told = json.loads(printed)
    return told["response_code"], told["size_upload"]


@pytest.mark.usefixtures("nginx")
def test_nobody_gets_past_the_proxy(machine: Machine) -> None:
    """By tls-proxy.conf the port of the server is for this host alone."""
    shown = machine.show("lora-server.socket", "IPAddressDeny", "IPAddressAllow")

    assert "::/0" in shown
    assert "127.0.0.0/8" in shown
