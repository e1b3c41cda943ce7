"""The shapes on the wire that are this server's own: listings, details, the bin."""

from typing import Annotated, Any, Literal

from pydantic import Field, StrictInt, StringConstraints

from lora_server.web.schemas import (
    Answer,
    Duplicate,
    Request,
    Sha256,
    ShortText,
    ValidationError,
)

MAX_HEADER_CHARS = 6 * 1024 * 1024  # base64 of 4.5 MiB; longer headers are judged as they arrive

# SQLite ends a pattern at a NUL, and would find everything; PostgreSQL stores none.
_NO_NUL = r"^[^\x00]*$"
StoredText = Annotated[str, StringConstraints(max_length=256, pattern=_NO_NUL)]

PathText = Annotated[str, StringConstraints(min_length=1, max_length=4096)]


# --- the library


class Overrides(Answer):
    """What an admin set by hand; detection is kept apart."""

    base_model: str | None = None
    trigger_words: list[str] | None = None
    notes: str | None = None


class LoRA(Answer):
    """A stored LoRA and what is known of it."""

    file_path: str
    partial_path: str
    filename: str
    file_size: int
    entity_type: str
    upload_timestamp: str
    sha256: str
    uploaded_sha256: str | None = None
    inspection: dict[str, Any] | None = None
    verdict: str | None = Field(None, description="accepted, refused, or null: not yet judged")
    evaluation: str | None = Field(None, description="pass, review, fail or inconclusive")
    uploaded_by: str | None = None
    source: Literal["upload", "found"]
    overrides: Overrides = Field(default_factory=Overrides)


class HashClaim(Answer):
    """A digest that the file claims of itself."""

    source: str
    value: str
    matches: bool | None = Field(
        None, description="Of tensors_sha256; null until known, and for other kinds of digest"
    )


class Hashes(Answer):
    """The identities of a file: of its bytes, and of its weights whatever the header says."""

    sha256: str
    autov2: str = Field(description="The first 10 digits of sha256")
    tensors_sha256: str | None = Field(None, description="SHA-256 of the tensor section")
    autov3: str | None = Field(None, description="The first 12 digits of tensors_sha256")
    claims: list[HashClaim] = Field(default_factory=list)


class BriefEvaluation(Answer):
    """An evaluation of this content; the whole of it is at its own path."""

    id: str
    tier: str
    status: str
    verdict: str | None = None
    created_at: str


class LoRADetail(LoRA):
    """A stored LoRA and everything that is known of it."""

    hashes: Hashes
    duplicate_of: list[Duplicate] = Field(
        default_factory=list, description="Stored files with the same bytes or the same weights"
    )
    evaluations: list[BriefEvaluation] = Field(
        default_factory=list, description="The last evaluations of this content, newest first"
    )


class LoRAList(Answer):
    """A page of stored LoRAs; `count` is the number of all matches."""

    data: list[LoRA]
    count: int


class ListQuery(Request):
    """What a listing may ask for."""

    skip: int = Field(0, ge=0, le=2**31, description="How many matches to leave out")
    limit: int = Field(100, ge=1, le=1000, description="How many to return at most")
    entity_type: ShortText | None = Field(None, description="Only this entity type")
    q: StoredText | None = Field(None, description="Part of a name, without regard to case")
    base_model: ShortText | None = Field(None, description="Only this base model")
    adapter: ShortText | None = Field(None, description="Only this adapter family")
    verdict: ShortText | None = Field(None, description="Only this verdict")
    sha256: Sha256 | None = Field(None, description="Only this content")
    sort: Literal[
        "name",
        "-name",
        "file_size",
        "-file_size",
        "upload_timestamp",
        "-upload_timestamp",
        "entity_type",
        "-entity_type",
        "base_model",
        "-base_model",
        "adapter",
        "-adapter",
        "verdict",
        "-verdict",
    ] = Field("name", description="Order; '-' for descending, ties by partial path")


class DigestPath(Request):
    """The path of a look-up by content."""

    hex: Sha256


class LoRAPatch(Request):
    """What an admin sets by hand; null takes a setting back, an absent field stays."""

    base_model: StoredText | None = None
    trigger_words: Annotated[list[StoredText], Field(max_length=100)] | None = None
    notes: Annotated[str, StringConstraints(max_length=10_000, pattern=_NO_NUL)] | None = None


class LoRAMoveRequest(Request):
    """Request model for moving a LoRA to another entity type."""

    partial_path: PathText = Field(
        description="Relative path of the LoRA file (as returned by upload)"
    )
    entity_type: ShortText = Field(description="The entity type to move it to")


# --- the bin


class BinnedLoRA(Answer):
    """A deleted LoRA that can be restored."""

    bin_path: str
    partial_path: str = Field(description="Where it goes back to, if the name is still free")
    file_size: int
    entity_type: str
    sha256: str
    deleted_at: str | None = None
    deleted_by: str | None = None
    purge_after: str | None = None


class BinList(Answer):
    """A page of the bin; `count` is the number of all matches."""

    data: list[BinnedLoRA]
    count: int


class BinQuery(Request):
    """What a listing of the bin may ask for."""

    skip: int = Field(0, ge=0, le=2**31, description="How many matches to leave out")
    limit: int = Field(100, ge=1, le=1000, description="How many to return at most")
    entity_type: ShortText | None = Field(None, description="Only this entity type")
    q: StoredText | None = Field(None, description="Part of a name, without regard to case")


class LoRARestoreRequest(Request):
    """Request model for restoring a LoRA from the bin."""

    bin_path: PathText = Field(description="Path in the bin (as returned by delete)")


class LoRAPurgeRequest(Request):
    """Request model for purging: one file, or all that are past their retention."""

    bin_path: PathText | None = Field(None, description="Path in the bin (as returned by delete)")
    past_retention: Literal[True] | None = Field(
        None, description="Everything that has been in the bin longer than bin_retention"
    )


class LoRAPurgeResponse(Answer):
    """Response model for purging."""

    purged: list[str] = Field(description="The bin paths that are gone for good")


class DownloadQuery(Request):
    """How a download may differ from the stored file."""

    strip_metadata: bool = Field(
        default=False,
        description="Leave training metadata out; without the admin scope it always is",
    )


class PreflightRequest(Request):
    """A file that could be sent, described."""

    filename: ShortText
    entity_type: ShortText | None = None
    file_size: StrictInt = Field(ge=0, le=2**53)
    sha256: Sha256 | None = None
    header: Annotated[str, StringConstraints(max_length=MAX_HEADER_CHARS)] | None = Field(
        None, description="Base64 of the first bytes of a .safetensors file, its header at least"
    )


class PreflightResponse(Answer):
    """Whether the file would be taken; `exists` tells whether this content is stored already."""

    acceptable: bool
    reasons: list[ValidationError] = Field(description="Why not, as an upload would answer")
    exists: bool
    inspection: dict[str, Any] | None = Field(None, description="What the header says, in short")
