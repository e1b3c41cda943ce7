"""A bearer token becomes a Principal, or a reason why not; and new tokens are minted.

The rules are those of RFC 8725 (JSON Web Token Best Current Practices) and RFC 9068.
"""

import json
import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard, cast

import jwt
from jwt.algorithms import AllowedPrivateKeys, AllowedPublicKeys
from jwt.types import Options

from lora_server.config import AuthConfig
from lora_server.errors import Unauthenticated
from lora_server.jwt_keys import Key
from lora_server.records import Principal
from lora_server.revocations import Revocations

MAX_TOKEN_BYTES = 8 * 1024
MAX_ID_CHARS = 256  # of a subject or a jti: they go into log lines and rows
_MAX_TIME = 2**53  # seconds since the epoch that a float still counts exactly
_TYPES = frozenset({"jwt", "at+jwt", "application/at+jwt"})  # RFC 9068, 2.1
_OPTIONS: Options = {
    "require": ["exp", "iat", "sub"],
    "enforce_minimum_key_length": True,
    # PyJWT would take "123" for a number and knows no clock but its own.
    "verify_exp": False,
    "verify_iat": False,
    "verify_nbf": False,
}


class TokenVerifier:
    """Judges tokens by the keys, the settings and the revocations it was made with.

    It does no I/O and may be called from any thread.
    """

    def __init__(self, keys: Sequence[Key], auth: AuthConfig, revocations: Revocations) -> None:
        self._keys = {key.kid: key for key in keys}
        self._auth = auth
        self._revocations = revocations
        self._jwt = _OneMeaning()

    def verify(self, token: str, now: float | None = None) -> Principal:
        """Return who calls; `now` is in seconds since the epoch, by default the clock's.

        Raises:
            Unauthenticated: the token breaks a rule; `reason` says which.

        """
        header = _header(token)
        if str(header.get("typ", "JWT")).lower() not in _TYPES:
            raise _refused("typ is not that of an access token")
        key = self._key_for(header)
        claims = self._signed_claims(token, key)
        _check_times(claims, self._auth, time.time() if now is None else now)
        subject, jti = _identifier(claims, "sub"), None
        if "jti" in claims:
            jti = _identifier(claims, "jti")
        if self._revocations.is_revoked(jti, subject, claims["iat"]):
            raise _refused("the token or its subject is revoked")
        return Principal(subject, _scopes(claims.get("scope", "")), jti, key.kid)

    def _key_for(self, header: Mapping[str, Any]) -> Key:
        """Choose by `kid` among the configured keys; no other header names or brings a key."""
        kid = header.get("kid")
        if kid is None and len(self._keys) == 1:
            return next(iter(self._keys.values()))
        if kid not in self._keys:
            raise _refused("no kid, and several keys" if kid is None else "unknown kid")
        return self._keys[kid]

    def _signed_claims(self, token: str, key: Key) -> dict[str, Any]:
        try:
            return self._jwt.decode(
                token,
                cast(AllowedPublicKeys | bytes, key.material),
                algorithms=[key.algorithm],
                options=_OPTIONS,
                audience=self._auth.audience,
                issuer=self._auth.issuer,
            )
        except jwt.PyJWTError as error:
            raise _refused(str(error) or type(error).__name__) from error


def mint(  # noqa: PLR0913 - every claim of a token has its name
    key: Key,
    *,
    subject: str,
    scope: str = "",
    ttl_s: float,
    audience: str | None = None,
    issuer: str | None = None,
    now: float,
) -> str:
    """Return a token signed with `key`, with a random jti, good from `now` for `ttl_s` seconds.

    Times are cut to whole seconds. Claims and the kid that are empty are left out.

    Raises:
        ValueError: the subject is none that would verify, or the key cannot sign.

    """
    if not is_identifier(subject):
        raise ValueError(f"a subject is 1 to {MAX_ID_CHARS} printable characters")
    if not key.can_sign:
        raise ValueError("a public key cannot sign")
    issued = int(now)
    claims = {"sub": subject, "iat": issued, "exp": issued + int(ttl_s), "scope": scope}
    claims |= {"jti": secrets.token_urlsafe(16), "aud": audience, "iss": issuer}
    return jwt.encode(
        {name: value for name, value in claims.items() if value},
        cast(AllowedPrivateKeys | bytes, key.material),
        algorithm=key.algorithm,
        headers={"kid": key.kid} if key.kid else None,
    )


def unverified(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return header and claims for people to look at; nothing of them can be trusted.

    Raises:
        Unauthenticated: it is no token at all.

    """
    header = _header(token)
    try:
        return header, _OneMeaning().decode(token, options={"verify_signature": False})
    except jwt.PyJWTError as error:
        raise _refused(str(error) or type(error).__name__) from error


def is_identifier(value: object) -> TypeGuard[str]:
    """Tell whether `value` can be a subject or a jti: 1 to MAX_ID_CHARS printable characters."""
    return isinstance(value, str) and 0 < len(value) <= MAX_ID_CHARS and value.isprintable()


class _OneMeaning(jwt.PyJWT):
    """PyJWT, less the claims that two JSON readers could read differently."""

    def _decode_payload(self, decoded: dict[str, Any]) -> dict[str, Any]:
        try:
            claims = json.loads(decoded["payload"], object_pairs_hook=_unique)
        except (ValueError, RecursionError) as error:
            raise jwt.DecodeError(f"invalid claims: {error}") from error
        if not isinstance(claims, dict):
            raise jwt.DecodeError("the claims are no JSON object")
        return claims


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a name occurs twice")
    return members


def _header(token: str) -> dict[str, Any]:
    if not token.isascii() or len(token) > MAX_TOKEN_BYTES:
        raise _refused(f"not ASCII, or over {MAX_TOKEN_BYTES} bytes")
    try:
        return jwt.get_unverified_header(token)
    except jwt.PyJWTError as error:
        raise _refused(str(error) or type(error).__name__) from error


def _check_times(claims: Mapping[str, Any], auth: AuthConfig, now: float) -> None:
    issued, expires = _time(claims, "iat"), _time(claims, "exp")
    starts = _time(claims, "nbf") if "nbf" in claims else issued
    if max(issued, starts) > now + auth.leeway:
        raise _refused("iat or nbf lies in the future")
    if expires <= now - auth.leeway:
        raise _refused("expired")
    if expires - issued > auth.max_ttl:
        raise _refused(f"lives for longer than auth.max_ttl, {auth.max_ttl:.0f} s")


def _time(claims: Mapping[str, Any], name: str) -> float:
    """Return seconds since the epoch; the range also keeps out NaN and infinity."""
    value = claims[name]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _refused(f"{name} is not a number")
    if not 0 <= value <= _MAX_TIME:
        raise _refused(f"{name} is out of range")
    return value


def _identifier(claims: Mapping[str, Any], name: str) -> str:
    value = claims[name]
    if not is_identifier(value):
        raise _refused(f"{name} is not 1 to {MAX_ID_CHARS} printable characters")
    return value


def _scopes(claim: object) -> frozenset[str]:
    """Read a scope claim: words in one string (RFC 9068), or a list of words."""
    words = claim.split(" ") if isinstance(claim, str) else claim
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise _refused("scope is neither a string nor a list of strings")
    return frozenset(filter(None, words))


def _refused(reason: str) -> Unauthenticated:
    return Unauthenticated(reason, token_sent=True)
