"""`lora-server token` mints, shows and revokes."""

import json
import time
from pathlib import Path

import pytest

from lora_server.config import load
from lora_server.jwt_keys import load_keys
from lora_server.records import Principal
from lora_server.revocations import Revocations
from lora_server.tokens import TokenVerifier, unverified
from tests.cli.conftest import Run
from tests.key_files import write_pair


def verified(config: Path, token: str) -> Principal:
    """Return whom a server with these settings would see in the token."""
    auth = load(config).auth
    return TokenVerifier(load_keys(auth), auth, Revocations(auth.revoked_file)).verify(token)


def minted(run: Run, config: Path, *options: str) -> str:
    """Return a token of alice, minted by the command."""
    done = run("token", "mint", "--subject", "alice", "--config", config, *options)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.strip()


@pytest.fixture
def public_config(tmp_path: Path) -> Path:
    """Return settings with a public key, whose private half is in `private`."""
    _, public = write_pair(tmp_path / "private", "EdDSA")
    path = tmp_path / "public.toml"
    entry = f'{{ kid = "k1", algorithm = "EdDSA", file = "{public}" }}'
    path.write_text(f"[auth]\nkeys = [{entry}]\n", encoding="utf-8")
    return path


def test_minted_token_is_good(run: Run, config: Path) -> None:
    """The token is alone on stdout, and a server takes it for an hour."""
    token = minted(run, config, "--scope", "admin read")

    principal = verified(config, token)
    _, claims = unverified(token)
    assert principal.subject == "alice"
    assert principal.scopes == {"admin", "read"}
    assert claims["exp"] - claims["iat"] == 3600
    assert abs(claims["iat"] - time.time()) < 30


def test_ttl_is_capped_by_the_settings(run: Run, config: Path) -> None:
    """A token that servers would refuse is not minted."""
    done = run("token", "mint", "--subject", "a", "--ttl", "25h", "--config", config)

    assert (done.returncode, done.stdout) == (2, "")
    assert "auth.max_ttl" in done.stderr


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(("--subject", "a", "--ttl", "soon"), id="no duration"),
        pytest.param(("--subject", "a", "--ttl", "0s"), id="no time"),
        pytest.param(("--subject", "a\nb"), id="unprintable subject"),
        pytest.param(("--subject", ""), id="no subject"),
        pytest.param(("--subject", "a", "--kid", "k9"), id="unknown kid"),
    ],
)
def test_misuse_mints_nothing(run: Run, config: Path, options: tuple[str, ...]) -> None:
    """A value that makes no sense is a usage error."""
    done = run("token", "mint", *options, "--config", config)

    assert (done.returncode, done.stdout) == (2, "")


def test_audience_and_issuer_come_from_the_settings(run: Run, config: Path) -> None:
    """A minted token fits the server's own rules without being told."""
    with config.open("a", encoding="utf-8") as file:
        file.write('audience = "lora"\nissuer = "us"\n')

    assert verified(config, minted(run, config)).subject == "alice"


def test_token_for_elsewhere_is_noted(run: Run, config: Path) -> None:
    """A token that this server would refuse is minted with a word of warning on stderr."""
    done = run("token", "mint", "--subject", "a", "--audience", "b", "--config", config)

    assert done.returncode == 0
    assert done.stdout.count(".") == 2
    assert "refuses this token" in done.stderr


def test_public_key_needs_its_private_half(run: Run, public_config: Path) -> None:
    """A box that only verifies cannot mint, but whoever holds the private half can."""
    options = ("token", "mint", "--subject", "alice", "--config", public_config)
    without, by_private = run(*options), run(*options, "--private-key", "private")

    assert (without.returncode, without.stdout) == (2, "")
    assert "--private-key" in without.stderr
    assert verified(public_config, by_private.stdout.strip()).kid == "k1"


def test_wrong_private_half(run: Run, public_config: Path, tmp_path: Path) -> None:
    """A private key of another pair is refused by the option's name."""
    write_pair(tmp_path / "other", "EdDSA")
    options = ("token", "mint", "--subject", "a", "--config", public_config)
    done = run(*options, "--private-key", "other")

    assert (done.returncode, done.stdout) == (78, "")
    assert "--private-key" in done.stderr


@pytest.mark.parametrize("how", ["argument", "dash", "stdin"])
def test_inspect_shows_a_good_token(run: Run, config: Path, how: str) -> None:
    """A token is shown from wherever it comes, with times in words and a verdict."""
    token = minted(run, config, "--scope", "read")
    given = {"argument": (token,), "dash": ("-",), "stdin": ()}[how]
    done = run("token", "inspect", *given, "--config", config, stdin=token + "\n")

    assert done.returncode == 0
    assert '"alice"' in done.stdout
    assert "in 0:59:5" in done.stdout or "in 1:00:00" in done.stdout
    assert done.stdout.rstrip().endswith("valid")
    assert token not in done.stdout


def test_inspect_for_programs(run: Run, config: Path) -> None:
    """Header, claims and verdict as JSON."""
    done = run("token", "inspect", "--json", "--config", config, stdin=minted(run, config))

    shown = json.loads(done.stdout)
    assert shown["header"] == {"alg": "HS256", "typ": "JWT"}
    assert shown["claims"]["sub"] == "alice"
    assert (shown["valid"], shown["reason"]) == (True, None)


def test_inspect_without_a_key_does_not_judge(run: Run, config: Path) -> None:
    """Without settings the claims are shown, and nothing is said of them."""
    done = run("token", "inspect", "--json", stdin=minted(run, config))

    assert done.returncode == 0
    assert json.loads(done.stdout)["valid"] is None


def test_inspect_names_the_broken_rule(run: Run, config: Path) -> None:
    """A token that is refused is shown with the reason, and the status is 1."""
    with config.open("a", encoding="utf-8") as file:
        file.write('audience = "lora"\n')
    token = minted(run, config)
    config.write_text(
        config.read_text(encoding="utf-8").replace('"lora"', '"other"'), encoding="utf-8"
    )
    done = run("token", "inspect", "--config", config, stdin=token)

    assert done.returncode == 1
    assert "refused: Audience doesn't match" in done.stdout


@pytest.mark.parametrize("text", ["", "garbage", "a.b.c"])
def test_inspect_of_no_token(run: Run, text: str) -> None:
    """What is no token is a failure, said in one line that does not repeat it."""
    done = run("token", "inspect", stdin=text)

    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)


def test_revoked_by_itself(run: Run, config: Path) -> None:
    """A token that is piped in ends, and another of its subject goes on."""
    token, other = minted(run, config), minted(run, config)
    done = run("token", "revoke", "--token", "-", "--config", config, stdin=token)

    assert done.returncode == 0
    judged = run("token", "inspect", "--config", config, stdin=token)
    assert "refused: the token or its subject is revoked" in judged.stdout
    assert verified(config, other).subject == "alice"


@pytest.mark.parametrize("by", ["--jti", "--subject"])
def test_revoked_by_name(run: Run, config: Path, by: str) -> None:
    """A token ends by its jti or by its subject."""
    token = minted(run, config)
    named = unverified(token)[1]["jti" if by == "--jti" else "sub"]
    done = run("token", "revoke", by, named, "--config", config)

    assert done.returncode == 0
    assert run("token", "inspect", "--config", config, stdin=token).returncode == 1


def test_revoking_needs_a_file(run: Run, config: Path) -> None:
    """Without auth.revoked_file the missing setting is named."""
    done = run("token", "revoke", "--jti", "a", LORA_SERVER_AUTH__KEY_FILE=config)

    assert done.returncode == 78
    assert "auth.revoked_file" in done.stderr


@pytest.mark.parametrize(
    "options", [(), ("--jti", "a", "--subject", "b"), ("--jti", ""), ("--subject", "a\nb")]
)
def test_revoking_takes_one_good_name(run: Run, config: Path, options: tuple[str, ...]) -> None:
    """None, two, or one that no token can have: nothing is written."""
    done = run("token", "revoke", *options, "--config", config)

    assert done.returncode == 2
    assert not (config.parent / "revoked.jsonl").exists()
