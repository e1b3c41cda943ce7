"""`make uninstall`, which comes last."""

from tests.systemd.calls import Caller
from tests.systemd.machine import Machine


def test_uninstalling_leaves_the_data(machine: Machine, caller: Caller) -> None:
    """Services and program go; weights, catalogue, settings, key and users stay."""
    _, stored = caller.upload("outlives", size=4000)
    machine.run("make", "--directory=/root/lora_server", "uninstall")
    left = machine.shell(
        "find /opt/lora-server /usr/local/bin/lora-server /usr/share/doc/lora-server"
        " /etc/systemd/system /etc/sysusers.d -name '*lora*' 2>/dev/null || true"
    )

    assert left == ""
    assert machine.run("sha256sum", stored["file_path"]).startswith(stored["sha256"])
    assert machine.run("ls", "/var/lib/lora-server/catalog.sqlite3", "/etc/lora-server/jwt.key")
    assert "port = 8080" in machine.run("cat", "/etc/lora-server/config.toml")
    assert "lora-server" in machine.run("id", "lora-server")
    assert machine.run("curl", "-s", "http://127.0.0.1:8080/livez", check=False) == ""
