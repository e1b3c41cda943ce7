"""Tokens of any content, good and forged, and how they are judged."""

import base64
import json
from typing import Any

import jwt
import pytest

from lora_server.config import AuthConfig
from lora_server.errors import Unauthenticated
from lora_server.jwt_keys import Key
from lora_server.revocations import Revocations
from lora_server.tokens import TokenVerifier

NOW = 1_800_000_000
LEEWAY = 30
HOUR = 3600
SECRET = b"a secret that thirty-two bytes and more make strong"
KEY = Key(None, "HS256", SECRET)
GOOD = {"sub": "alice", "iat": NOW, "exp": NOW + HOUR}


def verifier(*keys: Key, auth: AuthConfig | None = None) -> TokenVerifier:
    """Return a verifier with these keys, by default KEY, where nothing is revoked."""
    return TokenVerifier(keys or (KEY,), auth or AuthConfig(), Revocations(None))


def segment(content: bytes | dict[str, Any]) -> str:
    """Return one part of a token."""
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def signed(payload: bytes | dict[str, Any], header: dict[str, Any] | None = None) -> str:
    """Return a token of any content, truly signed with KEY."""
    head = {"alg": "HS256", "typ": "JWT"} | (header or {})
    body = f"{segment(head)}.{segment(payload)}"
    signature = jwt.get_algorithm_by_name("HS256").sign(body.encode(), SECRET)
    return f"{body}.{segment(signature)}"


def reason(token: str, by: TokenVerifier | None = None, now: float | None = NOW) -> str:
    """Return why a token is refused at `now`; fails if it is not."""
    with pytest.raises(Unauthenticated) as refused:
        (by or verifier()).verify(token, now)
    assert refused.value.token_sent
    assert len(token) < 8 or token not in str(refused.value)  # a letter or two may be in any text
    return refused.value.reason
