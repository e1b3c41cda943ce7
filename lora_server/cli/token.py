"""`lora-server token`: mint, look at and revoke the tokens that callers send."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from lora_server import tokens
from lora_server.cli.claims import Inspected, print_for_people
from lora_server.cli.options import AsJson, ConfigPath, duration, token_text
from lora_server.cli.status import Status, fail
from lora_server.config import AuthConfig, credentials_directory, load
from lora_server.errors import ConfigInvalid, Unauthenticated
from lora_server.jwt_keys import Key, load_keys, load_private_key
from lora_server.revocations import Revocations, revoke_subject, revoke_token

app = typer.Typer(no_args_is_help=True, help="Mint, look at and revoke tokens.")


@app.command(epilog="Example: lora-server token mint --subject alice --scope admin --ttl 12h")
def mint(  # noqa: PLR0913 - each is an option of the command
    *,
    subject: Annotated[str, typer.Option(help="Who will call with it.")],
    scope: Annotated[str, typer.Option(help='What it allows besides uploads: "admin read".')] = "",
    ttl: Annotated[str, typer.Option(help="How long it is good: 90s, 5m, 12h, 30d.")] = "1h",
    kid: Annotated[str | None, typer.Option(help="Which of auth.keys signs.")] = None,
    private_key: Annotated[
        Path | None, typer.Option(help="The private half, where the key is RS256 or EdDSA.")
    ] = None,
    audience: Annotated[str | None, typer.Option(help="By default auth.audience.")] = None,
    issuer: Annotated[str | None, typer.Option(help="By default auth.issuer.")] = None,
    config: ConfigPath = None,
) -> None:
    """Print a fresh token, alone on stdout; the first key configured signs."""
    auth = load(config).auth
    ttl_s = duration(ttl, "--ttl")
    if ttl_s > auth.max_ttl:
        _misused("--ttl", f"auth.max_ttl is {auth.max_ttl:.0f} s, and servers refuse more")
    if not tokens.is_identifier(subject):
        _misused("--subject", f"1 to {tokens.MAX_ID_CHARS} printable characters are needed")
    keys = load_keys(auth, credentials=credentials_directory())
    now = time.time()
    token = tokens.mint(
        _signing(_chosen(keys, kid), private_key),
        subject=subject,
        scope=scope,
        ttl_s=ttl_s,
        audience=audience or auth.audience,
        issuer=issuer or auth.issuer,
        now=now,
    )
    if refusal := _refusal(token, keys, auth, now):
        typer.echo(f"Note: a server with these settings refuses this token: {refusal}", err=True)
    typer.echo(token)


@app.command(epilog="Example: lora-server token inspect < token.txt")
def inspect(
    token: Annotated[
        str | None, typer.Argument(help="The token; better piped in: others see arguments.")
    ] = None,
    *,
    config: ConfigPath = None,
    as_json: AsJson = False,
) -> None:
    """Show what a token says, and which rule it breaks if any (then the status is 1)."""
    text, auth, now = token_text(token), load(config).auth, time.time()
    judged = bool(auth.key_file or auth.keys)
    try:
        header, claims = tokens.unverified(text)
    except Unauthenticated as error:
        fail(f"this is no token: {error.reason}")
    keys = load_keys(auth, credentials=credentials_directory()) if judged else ()
    refusal = _refusal(text, keys, auth, now) if judged else None
    seen = Inspected(header, claims, refusal, judged)
    if as_json:
        typer.echo(seen.as_json())
    else:
        print_for_people(seen, now)
    raise typer.Exit(Status.FAILURE if refusal else Status.OK)


@app.command(epilog="Example: lora-server token revoke --token - < token.txt")
def revoke(
    *,
    jti: Annotated[str | None, typer.Option(help="End the token with this id.")] = None,
    token: Annotated[
        str | None, typer.Option(help="End this token; - reads it from stdin.")
    ] = None,
    subject: Annotated[
        str | None, typer.Option(help="End all tokens of a subject that were issued until now.")
    ] = None,
    config: ConfigPath = None,
) -> None:
    """Write a revocation into auth.revoked_file; a running server heeds it within seconds."""
    if sum(given is not None for given in (jti, token, subject)) != 1:
        _misused("--jti, --token, --subject", "give exactly one")
    auth = load(config).auth
    if auth.revoked_file is None:
        raise ConfigInvalid("auth.revoked_file: not set, so there is nowhere to write it down")
    ended = (subject if jti is None else jti) if token is None else _jti(token_text(token))
    if not tokens.is_identifier(ended):
        _misused("--jti, --subject", "no token that verifies has such a value")
    write = revoke_token if subject is None else revoke_subject
    keep_s = auth.max_ttl + 2 * auth.leeway  # by then every token it could name has expired
    try:
        write(auth.revoked_file, ended, now=time.time(), keep_s=keep_s)
    except OSError as error:
        fail(f"{auth.revoked_file} cannot be written: {error.strerror}")
    typer.echo(f"revoked {ended}", err=True)


def _chosen(keys: Sequence[Key], kid: str | None) -> Key:
    for key in keys:
        if kid in (None, key.kid):
            return key
    known = ", ".join(key.kid for key in keys if key.kid) or "none"
    return _misused("--kid", f"{kid!r} is not in auth.keys, which has: {known}")


def _signing(key: Key, private_key: Path | None) -> Key:
    if key.can_sign:
        return key
    if private_key is None:
        _misused("--private-key", f"needed: key {key.kid!r} is public and cannot sign")
    return load_private_key(private_key, key, setting="--private-key")


def _refusal(token: str, keys: Sequence[Key], auth: AuthConfig, now: float) -> str | None:
    try:
        tokens.TokenVerifier(keys, auth, Revocations(auth.revoked_file)).verify(token, now)
    except Unauthenticated as error:
        return error.reason
    return None


def _jti(token: str) -> str:
    try:
        _, claims = tokens.unverified(token)
    except Unauthenticated as error:
        fail(f"this is no token: {error.reason}")
    if not tokens.is_identifier(claims.get("jti")):
        fail("this token has no jti; revoke its subject instead")
    return str(claims["jti"])


def _misused(option: str, why: str) -> NoReturn:
    raise typer.BadParameter(why, param_hint=option)
