"""The stable codes of a refusal, and how untrusted text is quoted in its reason."""

CORRUPT = "lora_corrupt"  # cut short, contradictory, or not in the shape its format demands
UNSUPPORTED = "lora_unsupported"  # an honest format that is not read here
NO_TENSORS = "lora_no_tensors"
UNSAFE_PICKLE = "lora_unsafe_pickle"  # asks a loader to import, call or set something
TOO_COMPLEX = "lora_pickle_too_complex"  # beyond a budget of the reader
ZIP_AMBIGUOUS = "lora_zip_ambiguous"  # two zip readers could see different content
TENSOR_BOUNDS = "lora_tensor_bounds"  # a view reaches outside its storage

RESAVE = "save it again with torch.save's default protocol 2, or as .safetensors"

_MAX_EXCERPT = 80


def excerpt(text: str | bytes) -> str:
    """Return untrusted text in printable ASCII, at most 80 characters and quoted."""
    if isinstance(text, bytes):
        text = text[: _MAX_EXCERPT + 1].decode("latin-1")
    shown = text[:_MAX_EXCERPT].encode("unicode_escape").decode("ascii")[:_MAX_EXCERPT]
    return f"'{shown}'" if len(text) <= _MAX_EXCERPT else f"'{shown}...'"
