"""The shapes on the wire; titles, descriptions and examples are the customer's document's.

Models that the document names keep its fields; what was added is optional and stands last.
What the document does not know is in `library_schemas`.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-fA-F]{64}$")]
ShortText = Annotated[str, StringConstraints(max_length=256)]
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
    sha256: Annotated[Sha256 | None, BeforeValidator(lambda sent: sent or None)] = None


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


# --- deletion


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
