"""The shapes on the wire; titles, descriptions and examples are the customer's document's.

Models that the document names keep its fields; what was added is optional and stands last.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-fA-F]{64}$")]
ShortText = Annotated[str, StringConstraints(max_length=256)]
PathText = Annotated[str, StringConstraints(min_length=1, max_length=4096)]
MAX_HEADER_CHARS = 6 * 1024 * 1024  # base64 of 4.5 MiB; longer headers are judged as they arrive

_STAMP = "2024-01-01T12:00:00Z"
_LIVE_PATH = "/data/models/loras/identities/my_lora.safetensors"


def _example(value: object) -> dict[str, Any]:
    return {"example": value}


class Answer(BaseModel):
    """A response body."""

    model_config = ConfigDict(extra="forbid", json_schema_serialization_defaults_required=False)


class Request(BaseModel):
    """A request body or query; unknown fields are refused."""

    model_config = ConfigDict(extra="forbid")


# --- uploads


class UploadFields(BaseModel):
    """The text fields of both upload forms; what the server does not know is ignored."""

    entity_type: ShortText | None = None
    use_safe_filename: bool = True
    sha256: Sha256 | Literal[""] | None = None


class BodyUploadLora(BaseModel):
    """The form of an upload."""

    model_config = ConfigDict(title="Body_upload_lora")

    file: str = Field(
        description="The LoRA model file to upload", json_schema_extra={"format": "binary"}
    )
    entity_type: str | None = Field(
        None, description="The entity type (clothes, identities, product, styles)"
    )
    use_safe_filename: bool = Field(
        default=True,
        description="Whether to enable automatic versioning for duplicate filenames",
    )
    sha256: str | None = Field(
        None, description="The file's SHA-256 in hex; a mismatch is refused and nothing is stored"
    )


class BodyAdminUploadLora(BodyUploadLora):
    """The form of an admin's upload."""

    model_config = ConfigDict(title="Body_admin_upload_lora")

    entity_type: str | None = Field(
        None, description="The entity type (clothes, faces, identities, product, styles)"
    )


class Duplicate(Answer):
    """Another stored file with the same content."""

    partial_path: str
    kind: Literal["bytes", "weights"]


class LoRAUploadResponse(Answer):
    """Response model for LoRA upload endpoint."""

    file_path: str = Field(description="Full path where the LoRA file was stored")
    partial_path: str = Field(
        description="Partial path relative to base models directory "
        "(e.g., 'identities/lora_name.safetensors')"
    )
    filename: str = Field(description="Original filename of the uploaded file")
    file_size: int = Field(description="Size of the uploaded file in bytes")
    upload_timestamp: str = Field(description="ISO timestamp of when the file was uploaded")
    sha256: str | None = Field(None, description="SHA-256 of the stored file, lower-case hex")
    uploaded_sha256: str | None = Field(
        None, description="SHA-256 of the upload, where the stored file is a conversion of it"
    )
    inspection: dict[str, Any] | None = Field(None, description="What the file is, in short")


class AdminLoRAUploadResponse(Answer):
    """Response model for admin LoRA upload."""

    file_path: str = Field(
        description="Full path where the file was saved", json_schema_extra=_example(_LIVE_PATH)
    )
    partial_path: str = Field(
        description="Relative path within the LoRA directory",
        json_schema_extra=_example("identities/my_lora.safetensors"),
    )
    filename: str = Field(
        description="Original filename", json_schema_extra=_example("my_lora.safetensors")
    )
    file_size: int = Field(
        description="Size of the uploaded file in bytes", json_schema_extra=_example(142857)
    )
    entity_type: str = Field(
        description="The entity type category", json_schema_extra=_example("identities")
    )
    upload_timestamp: str = Field(
        description="ISO format timestamp of when the file was uploaded",
        json_schema_extra=_example(_STAMP),
    )
    sha256: str | None = Field(None, description="SHA-256 of the stored file, lower-case hex")
    uploaded_sha256: str | None = Field(
        None, description="SHA-256 of the upload, where the stored file is a conversion of it"
    )
    inspection: dict[str, Any] | None = Field(None, description="What the file is, in short")
    duplicate_of: list[Duplicate] = Field(
        default_factory=list, description="Stored files with the same content"
    )


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
    matches: bool | None = Field(None, description="Of tensors_sha256; null until that is known")


class Hashes(Answer):
    """The identities of a file: of its bytes, and of its weights whatever the header says."""

    sha256: str
    autov2: str = Field(description="The first 10 digits of sha256")
    tensors_sha256: str | None = Field(None, description="SHA-256 of the tensor section")
    autov3: str | None = Field(None, description="The first 12 digits of tensors_sha256")
    claims: list[HashClaim] = Field(default_factory=list)


class LoRADetail(LoRA):
    """A stored LoRA and everything that is known of it."""

    hashes: Hashes
    duplicate_of: list[Duplicate] = Field(
        default_factory=list, description="Stored files with the same bytes or the same weights"
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
    q: ShortText | None = Field(None, description="Part of a name, without regard to case")
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
    file_size: int = Field(ge=0, le=2**53)
    sha256: Sha256 | None = None
    header: Annotated[str, StringConstraints(max_length=MAX_HEADER_CHARS)] | None = Field(
        None, description="Base64 of the first bytes of a .safetensors file, its header at least"
    )


class PreflightResponse(Answer):
    """Whether the file would be taken; `exists` tells whether this content is stored already."""

    acceptable: bool
    reasons: list["ValidationError"] = Field(description="Why not, as an upload would answer")
    exists: bool
    inspection: dict[str, Any] | None = Field(None, description="What the header says, in short")


class DigestPath(Request):
    """The path of a look-up by content."""

    hex: Sha256


class LoRAPatch(Request):
    """What an admin sets by hand; null takes a setting back, an absent field stays."""

    base_model: ShortText | None = None
    trigger_words: Annotated[list[ShortText], Field(max_length=100)] | None = None
    notes: Annotated[str, StringConstraints(max_length=10_000)] | None = None


class LoRAMoveRequest(Request):
    """Request model for moving a LoRA to another entity type."""

    partial_path: PathText = Field(
        description="Relative path of the LoRA file (as returned by upload)"
    )
    entity_type: ShortText = Field(description="The entity type to move it to")


class LoRADeleteRequest(BaseModel):
    """Request model for deleting a LoRA model file."""

    partial_path: str = Field(
        description="Relative path of the LoRA file (as returned by upload)",
        json_schema_extra=_example("identities/Sh0ot1f1_01.safetensors"),
    )


class LoRADeleteResponse(Answer):
    """Response model for LoRA deletion."""

    deleted: bool = Field(description="Whether the file was successfully deleted")
    full_path: str = Field(
        description="Full path of the deleted file",
        json_schema_extra=_example("/data/models/loras/identities/Sh0ot1f1_01.safetensors"),
    )
    bin_path: str | None = Field(
        None,
        description="Path where the file was moved in the bin",
        json_schema_extra=_example("/data/bin/models/loras/identities/Sh0ot1f1_01.safetensors"),
    )
    timestamp: str = Field(
        description="ISO format timestamp of the deletion", json_schema_extra=_example(_STAMP)
    )


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
    q: ShortText | None = Field(None, description="Part of a name, without regard to case")


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


# --- health and errors


class Health(Answer):
    """Whether the server can do its work."""

    status: Literal["ok", "unavailable"]


class Problem(BaseModel):
    """An error, in one sentence that says what to do."""

    detail: str


class ValidationError(BaseModel):
    """What is wrong with one field."""

    loc: list[str | int] = Field(title="Location")
    msg: str = Field(title="Message")
    type: str = Field(title="Error Type")


class HTTPValidationError(BaseModel):
    """What is wrong with a request, field by field."""

    detail: list[ValidationError] = Field(default_factory=list, title="Detail")
