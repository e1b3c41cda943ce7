"""A request for an evaluation becomes a plan: everything it names is looked up, or refused."""

from collections.abc import Sequence
from dataclasses import replace

from aiohttp import web

from lora_server.errors import Complaint, FieldsInvalid, LoraNotFound
from lora_server.evaluation.health import NO_BASE_MODEL
from lora_server.evaluation.plans import DEFAULT_GATE, Plan
from lora_server.names import parse_partial_path
from lora_server.records import Place, StoredLora, Verdict
from lora_server.web.evaluation_schemas import EvaluationRequest
from lora_server.web.keys import LIBRARY


async def live_at(request: web.Request, partial_path: str, field: str) -> StoredLora:
    """Return the live LoRA of a path that a body names.

    Raises:
        FieldsInvalid: the path can name nothing, or the file there was refused.
        LoraNotFound: there is none.

    """
    library = request.app[LIBRARY]
    types = library.store.layout.entity_types
    location = parse_partial_path(partial_path, Place.MODELS, types)
    lora = await library.catalog.find(location)
    if lora is None:
        raise LoraNotFound
    if lora.judgement and lora.judgement.verdict is Verdict.REFUSED:
        raise FieldsInvalid(_complaint(field, "this file was refused and is not evaluated"))
    return lora


async def planned(request: web.Request, wanted: EvaluationRequest, lora: StoredLora) -> Plan:
    """Return the plan of a request.

    Raises:
        FieldsInvalid: something that it names is not known for this LoRA; says all that is.

    """
    complaints = [*_of_tier(wanted), *_of_names(wanted)]
    compare_to = None
    if wanted.compare_to is not None:
        try:
            compare_to = (await live_at(request, wanted.compare_to, "compare_to")).sha256
        except LoraNotFound:
            complaints.append(_complaint("compare_to", "no LoRA is stored at this path"))
        except FieldsInvalid as invalid:
            complaints += [replace(c, loc=("body", "compare_to")) for c in invalid.complaints]
        if compare_to == lora.sha256:
            complaints.append(_complaint("compare_to", "this is the same content"))
    if complaints:
        raise FieldsInvalid(*complaints)
    return Plan.of(wanted.tier, lora, compare_to)


def _of_tier(wanted: EvaluationRequest) -> Sequence[Complaint]:
    if not wanted.tier.needs_gpu:
        return ()
    return [_complaint("tier", f"{wanted.tier} is not available: {NO_BASE_MODEL}")]


def _of_names(wanted: EvaluationRequest) -> Sequence[Complaint]:
    """Return what is not known; for `weights` too, so that one body fits one tier after another.

    What only images would need is otherwise ignored there.
    """
    complaints = []
    if wanted.base_model is not None:
        complaints.append(_complaint("base_model", NO_BASE_MODEL))
    if wanted.reference is not None:
        complaints.append(_complaint("reference", "no set of references has this name"))
    if wanted.gate not in {None, DEFAULT_GATE}:
        complaints.append(_complaint("gate", f"no gate has this name; there is: {DEFAULT_GATE}"))
    return complaints


def _complaint(field: str, why: str) -> Complaint:
    return Complaint(("body", field), f"Value error, {why}", "value_error")
