"""Records become the shapes of the wire."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from aiohttp import web
from pydantic import BaseModel

from lora_server.layout import Layout
from lora_server.records import Evaluation, Location, Place, StoredLora
from lora_server.web import library_schemas, schemas

# Claims whose definition is the SHA-256 of the tensor section; the others mean something else.
_CLAIMS_OF_TENSORS = frozenset({"sshs_model_hash", "modelspec.hash_sha256"})


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a LoRA's detail shows besides itself."""

    same_bytes: Sequence[StoredLora]
    same_weights: Sequence[StoredLora]
    evaluations: Sequence[Evaluation]


def respond(
    answer: BaseModel, status: int = 200, headers: Mapping[str, str] | None = None
) -> web.Response:
    """Return a body of one of the schemas; JSON is UTF-8 and names no charset (RFC 8259)."""
    body = answer.model_dump_json().encode()
    return web.Response(body=body, status=status, headers=headers, content_type="application/json")


def timestamp(seconds: int) -> str:
    """Return a moment as the wire has it: UTC, whole seconds, ending in Z."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def uploaded(lora: StoredLora, layout: Layout) -> schemas.LoRAUploadResponse:
    """Return the answer to an upload."""
    return schemas.LoRAUploadResponse(**_upload_fields(lora, layout))


def admin_uploaded(
    lora: StoredLora, layout: Layout, same: Sequence[StoredLora]
) -> schemas.AdminLoRAUploadResponse:
    """Return the answer to an admin's upload; `same` are the files with the same bytes."""
    others = [twin.location.partial_path for twin in same if twin.id != lora.id]
    return schemas.AdminLoRAUploadResponse(
        **_upload_fields(lora, layout),
        entity_type=lora.location.entity_type,
        duplicate_of=[schemas.Duplicate(partial_path=path, kind="bytes") for path in others],
    )


def _upload_fields(lora: StoredLora, layout: Layout) -> dict[str, Any]:
    converted = lora.uploaded_sha256 != lora.sha256
    return {
        "file_path": str(layout.path(lora.location)),
        "partial_path": lora.location.partial_path,
        "filename": lora.filename,
        "file_size": lora.uploaded_size,
        "upload_timestamp": timestamp(lora.uploaded_at),
        "sha256": lora.sha256,
        "uploaded_sha256": lora.uploaded_sha256 if converted else None,
        "inspection": dict(lora.judgement.summary) if lora.judgement else None,
    }


def listed(lora: StoredLora, layout: Layout, verdicts: Mapping[str, str]) -> library_schemas.LoRA:
    """Return a LoRA as lists and details show it to an admin; `verdicts` are by content."""
    return library_schemas.LoRA(
        **_upload_fields(lora, layout),
        entity_type=lora.location.entity_type,
        verdict=lora.judgement.verdict if lora.judgement else None,
        evaluation=verdicts.get(lora.sha256),
        uploaded_by=lora.uploaded_by,
        source=lora.source.value,
        overrides=library_schemas.Overrides(
            base_model=lora.override.base_model,
            trigger_words=(
                None if lora.override.trigger_words is None else list(lora.override.trigger_words)
            ),
            notes=lora.override.notes,
        ),
    )


def detailed(
    known: library_schemas.LoRA, lora: StoredLora, surroundings: Surroundings
) -> library_schemas.LoRADetail:
    """Return all that is known of a LoRA, from its form in lists on."""
    shown = known.model_dump()
    inspection = lora.judgement.inspection if lora.judgement else None
    twins = {twin.id: ("bytes", twin) for twin in surroundings.same_bytes}
    others = {**{twin.id: ("weights", twin) for twin in surroundings.same_weights}, **twins}
    return library_schemas.LoRADetail.model_validate(
        shown
        | {
            "inspection": inspection or shown["inspection"],
            "hashes": _hashes(lora, inspection or {}),
            "duplicate_of": [
                {"partial_path": twin.location.partial_path, "kind": kind}
                for twin_id, (kind, twin) in sorted(others.items())
                if twin_id != lora.id
            ],
            "evaluations": [_brief(evaluation) for evaluation in surroundings.evaluations],
        }
    )


def _brief(evaluation: Evaluation) -> library_schemas.BriefEvaluation:
    return library_schemas.BriefEvaluation(
        id=evaluation.id,
        tier=evaluation.tier,
        status=evaluation.status,
        verdict=evaluation.verdict,
        created_at=timestamp(evaluation.created_at),
    )


def _hashes(lora: StoredLora, inspection: Mapping[str, Any]) -> library_schemas.Hashes:
    """Return the digests that were computed, and beside them what the file claims of itself."""
    tensors = lora.tensors_sha256
    return library_schemas.Hashes(
        sha256=lora.sha256,
        autov2=lora.sha256[:10],
        tensors_sha256=tensors,
        autov3=tensors and tensors[:12],
        claims=[
            library_schemas.HashClaim(
                source=claim["source"],
                value=claim["value"],
                matches=(
                    claim["value"] == tensors
                    if tensors and claim["source"] in _CLAIMS_OF_TENSORS
                    else None
                ),
            )
            for claim in inspection.get("hash_claims", ())
        ],
    )


def deleted(lora: StoredLora, layout: Layout) -> schemas.LoRADeleteResponse:
    """Return the answer to a deletion."""
    return schemas.LoRADeleteResponse(
        deleted=True,
        full_path=str(layout.path(_home(lora))),
        bin_path=str(layout.path(lora.location)),
        timestamp=timestamp(lora.deleted_at or 0),
    )


def binned(lora: StoredLora, layout: Layout, retention_s: float) -> library_schemas.BinnedLoRA:
    """Return a deleted LoRA as the bin shows it."""
    gone = lora.deleted_at or 0
    return library_schemas.BinnedLoRA(
        bin_path=str(layout.path(lora.location)),
        partial_path=_home(lora).partial_path,
        file_size=lora.facts.size,
        entity_type=lora.location.entity_type,
        sha256=lora.sha256,
        deleted_at=timestamp(gone),
        deleted_by=lora.deleted_by,
        purge_after=timestamp(gone + int(retention_s)),
    )


def _home(lora: StoredLora) -> Location:
    return Location(Place.MODELS, lora.location.entity_type, lora.home_name)
