"""Settings: where they come from, which wins, and how a wrong one is named."""

import re
import tomllib
from pathlib import Path

import pytest

from lora_server.config import Config, credentials_directory, load
from lora_server.errors import ConfigInvalid

SAMPLE = Path(__file__).parent.parent / "config.toml"


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the machine's own settings out."""
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)


def written(folder: Path, text: str) -> Path:
    """Return a config.toml that holds `text`."""
    path = folder / "config.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_nothing_set_gives_the_defaults() -> None:
    """Without a file and variables the defaults hold."""
    assert load(None) == Config()


def test_sample_holds_the_defaults() -> None:
    """The commented sample sets every default and nothing else."""
    assert load(SAMPLE) == Config()


def test_sample_names_every_key() -> None:
    """No setting is missing from the sample, not even one without a default."""
    text = SAMPLE.read_text(encoding="utf-8")
    for section in Config.model_fields:
        table = re.split(r"^\[", text.partition(f"[{section}]")[2], flags=re.MULTILINE)[0]
        named = set(re.findall(r"^(?:# )?([a-z_]+) =", table, flags=re.MULTILINE))

        assert named == set(type(getattr(Config(), section)).model_fields)


def test_sample_says_why_of_every_key() -> None:
    """Each line of the sample that sets something explains it."""
    lines = SAMPLE.read_text(encoding="utf-8").splitlines()
    setting = [line for line in lines if re.match(r"[a-z_]+ =", line)]

    assert setting
    assert all(" # " in line for line in setting)


def test_sample_is_plain_toml_when_uncommented() -> None:
    """What is commented out for want of a default can be switched on as it stands."""
    text = SAMPLE.read_text(encoding="utf-8").replace("keys = []", "# ")
    enabled = tomllib.loads(re.sub(r"^# ([a-z_]+ =)", r"\1", text, flags=re.MULTILINE))

    config = Config(**enabled)
    assert config.auth.keys[0].algorithm == "EdDSA"
    assert config.auth.key_file is not None


def test_environment_wins_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable replaces one key of a section and leaves its neighbours as the file says."""
    path = written(tmp_path, '[server]\nhost = "10.0.0.1"\nport = 1\n')
    monkeypatch.setenv("LORA_SERVER_SERVER__PORT", "2")

    assert (load(path).server.host, load(path).server.port) == ("10.0.0.1", 2)


def test_lists_in_the_environment_are_json(monkeypatch: pytest.MonkeyPatch) -> None:
    """A list can be set by variable."""
    monkeypatch.setenv("LORA_SERVER_SERVER__TRUSTED_PROXIES", '["10.0.0.0/8"]')

    assert [str(network) for network in load(None).server.trusted_proxies] == ["10.0.0.0/8"]


def test_variables_of_the_client_are_no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """LORA_SERVER_URL and LORA_SERVER_TOKEN belong to the client commands."""
    monkeypatch.setenv("LORA_SERVER_URL", "http://localhost")
    monkeypatch.setenv("LORA_SERVER_TOKEN", "x")

    assert load(None) == Config()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        pytest.param('"90s"', 90, id="seconds"),
        pytest.param('"5m"', 300, id="minutes"),
        pytest.param('"12h"', 43200, id="hours"),
        pytest.param('"30d"', 2592000, id="days"),
        pytest.param("1.5", 1.5, id="a number is seconds"),
    ],
)
def test_durations(tmp_path: Path, text: str, value: float) -> None:
    """A time is a number with a unit, or seconds."""
    assert load(written(tmp_path, f"[auth]\nmax_ttl = {text}\n")).auth.max_ttl == value


@pytest.mark.parametrize(
    ("text", "named"),
    [
        pytest.param("[sever]\n", "sever", id="unknown section"),
        pytest.param("[server]\nprot = 1\n", "server.prot", id="unknown key"),
        pytest.param("port = 1\n", "port", id="key outside a section"),
        pytest.param('[server]\nport = "x"\n', "server.port", id="not a number"),
        pytest.param("[server]\nport = 65536\n", "server.port", id="no such port"),
        pytest.param('[server]\nbase_path = "api"\n', "server.base_path", id="relative path"),
        pytest.param(
            '[server]\ntrusted_proxies = ["x"]\n', "server.trusted_proxies", id="no network"
        ),
        pytest.param(
            "[server]\ntrusted_proxies = [5]\n", "server.trusted_proxies", id="number as network"
        ),
        pytest.param('[storage]\nfile_mode = "0999"\n', "storage.file_mode", id="not octal"),
        pytest.param('[storage]\nmax_file_size = "-5"\n', "storage.max_file_size", id="size"),
        pytest.param('[storage]\nentity_types = ["A"]\n', "storage.entity_types", id="type name"),
        pytest.param('[storage]\nentity_types = ["sha256"]\n', "entity_types", id="reserved type"),
        pytest.param(
            '[storage]\nadmin_entity_types = ["x"]\n', "admin_entity_types", id="unknown type"
        ),
        pytest.param('[auth]\nmax_ttl = "0s"\n', "auth.max_ttl", id="no time at all"),
        pytest.param("[auth]\nmax_ttl = inf\n", "auth.max_ttl", id="endless"),
        pytest.param("[auth]\nmax_ttl = nan\n", "auth.max_ttl", id="not a time"),
        pytest.param('[auth]\nleeway = "6m"\n', "auth.leeway", id="too much leeway"),
        pytest.param(
            '[auth]\nkeys = [{kid="a", algorithm="none", file="x"}]\n',
            "auth.keys.0.algorithm",
            id="algorithm none",
        ),
        pytest.param(
            '[auth]\nkeys = [{kid="a", algorithm="HS256", file="x"},'
            ' {kid="a", algorithm="HS256", file="y"}]\n',
            "auth",
            id="same kid twice",
        ),
        pytest.param("[server\n", "config.toml", id="no TOML"),
    ],
)
def test_wrong_settings_are_named(tmp_path: Path, text: str, named: str) -> None:
    """Whatever is wrong in the file, the complaint names where."""
    with pytest.raises(ConfigInvalid, match=rf"(^|[/ .\n]){re.escape(named)}\b"):
        load(written(tmp_path, text))


@pytest.mark.parametrize(
    ("name", "value", "named"),
    [
        pytest.param("LORA_SERVER_SEVER__PORT", "1", "LORA_SERVER_SEVER__PORT", id="section"),
        pytest.param("LORA_SERVER_SERVER__PROT", "1", "server.prot", id="key"),
        pytest.param("LORA_SERVER_SERVER__PORT", "x", "server.port", id="value"),
        pytest.param("LORA_SERVER_SERVER__PORT__X", "1", "server.port", id="too deep"),
        pytest.param("LORA_SERVER_AUTH__KEYS", "x", "auth.keys", id="list that is no JSON"),
        pytest.param("LORA_SERVER_SERVER", "x", "server", id="section that is no JSON"),
    ],
)
def test_wrong_variables_are_named(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, named: str
) -> None:
    """Whatever is wrong in the environment, the complaint names it."""
    monkeypatch.setenv(name, value)

    with pytest.raises(ConfigInvalid, match=f"^{re.escape(named)}"):
        load(None)


def test_missing_file_is_named(tmp_path: Path) -> None:
    """A path that was given must exist."""
    with pytest.raises(ConfigInvalid, match=r"absent\.toml"):
        load(tmp_path / "absent.toml")


def test_systemd_credential_is_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The credential jwt-key is taken when no key is configured."""
    (tmp_path / "jwt-key").touch()
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))

    assert credentials_directory() == tmp_path
    assert load(None).auth.key_file == tmp_path / "jwt-key"


def test_a_credential_stands_for_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service and whoever mints share the settings, though only one may open the files."""
    (tmp_path / "jwt-key").touch()
    (tmp_path / "keys_b.key").touch()
    path = written(
        tmp_path,
        "[auth]\nkey_file = '/etc/jwt.key'\nkeys = [\n"
        "{ kid = 'a', algorithm = 'EdDSA', file = '/etc/a.pub' },\n"
        "{ kid = 'b', algorithm = 'HS256', file = '/etc/keys/b.key' },\n]\n",
    )
    outside = load(path).auth
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    inside = load(path).auth

    assert outside.key_file == Path("/etc/jwt.key")
    assert [key.file for key in outside.keys] == [Path("/etc/a.pub"), Path("/etc/keys/b.key")]
    assert inside.key_file == tmp_path / "jwt-key"
    assert [key.file for key in inside.keys] == [Path("/etc/a.pub"), tmp_path / "keys_b.key"]


def test_a_credential_adds_no_key_to_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once `keys` replaced `key_file`, the old key is good for nothing, handed over or not."""
    (tmp_path / "jwt-key").touch()
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    path = written(
        tmp_path, "[auth]\nkeys = [{ kid = 'a', algorithm = 'EdDSA', file = '/etc/a.pub' }]\n"
    )

    assert load(path).auth.key_file is None


def test_other_credentials_are_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A credential store without jwt-key leaves the settings alone."""
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))

    assert load(None).auth.key_file is None
