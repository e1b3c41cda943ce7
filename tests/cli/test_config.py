"""`lora-server config` says what is in force, or what is wrong."""

import json
from pathlib import Path

from tests.cli.conftest import ROOT, Run
from tests.key_files import write_secret


def test_check_says_ok_and_what_is_in_force(run: Run, config: Path) -> None:
    """Good settings are summed up without their secrets."""
    done = run("config", "check", "--config", config)

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("ok\n")
    assert "http://127.0.0.1:8080/api/v1" in done.stdout
    assert (config.parent / "jwt.key").read_text(encoding="utf-8").strip() not in done.stdout


def test_check_for_programs(run: Run, config: Path) -> None:
    """The same as JSON; the path may come by the environment."""
    done = run("config", "check", "--json", LORA_SERVER_CONFIG=config)

    assert json.loads(done.stdout)["ok"] is True
    assert json.loads(done.stdout)["settings"] == str(config)


def test_wrong_key_is_status_78(run: Run, tmp_path: Path) -> None:
    """A mistyped key is named on stderr, and systemd gets EX_CONFIG."""
    (tmp_path / "c.toml").write_text("[server]\nprot = 1\n", encoding="utf-8")
    done = run("config", "check", "--config", "c.toml")

    assert (done.returncode, done.stdout) == (78, "")
    assert "server.prot" in done.stderr


def test_missing_key_is_status_78(run: Run) -> None:
    """Settings without a key do not start a server."""
    done = run("config", "check", "--config", ROOT / "config.toml")

    assert done.returncode == 78
    assert "auth.key_file" in done.stderr


def test_wrong_variable_is_status_78(run: Run) -> None:
    """A mistyped variable is named too, without a traceback."""
    done = run("config", "check", LORA_SERVER_AUTH__KEYS="x")

    assert (done.returncode, done.stderr.count("\n")) == (78, 1)
    assert "auth.keys" in done.stderr


def test_broken_revocations_are_status_78(run: Run, config: Path) -> None:
    """A server would not start on them, so the check says so."""
    (config.parent / "revoked.jsonl").write_text("broken\n", encoding="utf-8")
    done = run("config", "check", "--config", config)

    assert done.returncode == 78
    assert "auth.revoked_file" in done.stderr


def test_systemd_credential(run: Run, tmp_path: Path) -> None:
    """The key that systemd hands over is found, with the group bits that it shows."""
    write_secret(tmp_path / "jwt-key", mode=0o440)
    done = run("config", "check", CREDENTIALS_DIRECTORY=tmp_path)

    assert (done.returncode, done.stderr) == (0, "")


def test_show_prints_every_setting(run: Run) -> None:
    """What is in force goes out as JSON, the environment over the file."""
    done = run("config", "show", "--config", ROOT / "config.toml", LORA_SERVER_SERVER__PORT="8081")

    assert json.loads(done.stdout)["server"]["port"] == 8081
