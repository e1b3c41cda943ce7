"""Typed keys of what the application and a request carry."""

from typing import Any

from aiohttp import web

from lora_server.config import Config
from lora_server.door import Door
from lora_server.evaluation.service import EvaluationService
from lora_server.library import Library
from lora_server.records import Principal
from lora_server.revocations import Revocations
from lora_server.tokens import TokenVerifier
from lora_server.web.admission import Slot, UploadSlots
from lora_server.web.draining import Drain
from lora_server.web.logins import FailedLogins
from lora_server.web.metrics import Metrics
from lora_server.web.readiness import Readiness
from lora_server.web.routing import RouteTable

CONFIG = web.AppKey("CONFIG", Config)
DOOR = web.AppKey("DOOR", Door)
DRAIN = web.AppKey("DRAIN", Drain)
EVALUATIONS = web.AppKey("EVALUATIONS", EvaluationService)
LIBRARY = web.AppKey("LIBRARY", Library)
LOGINS = web.AppKey("LOGINS", FailedLogins)
METRICS = web.AppKey("METRICS", Metrics)
OPENAPI = web.AppKey("OPENAPI", bytes)
READINESS = web.AppKey("READINESS", Readiness)
REVOCATIONS = web.AppKey("REVOCATIONS", Revocations)
ROUTES = web.AppKey("ROUTES", RouteTable)
SLOTS = web.AppKey("SLOTS", UploadSlots)
VERIFIER = web.AppKey("VERIFIER", TokenVerifier)

AUDIT = web.RequestKey("AUDIT", dict[str, Any])  # what the audit log tells of the request
BOUNDARY = web.RequestKey("BOUNDARY", str)
PRINCIPAL = web.RequestKey("PRINCIPAL", Principal)
REQUEST_ID = web.RequestKey("REQUEST_ID", str)
SLOT = web.RequestKey("SLOT", Slot)
