"""The stable codes of a refused checkpoint, and what to do about it."""

CORRUPT = "lora_corrupt"  # cut short, contradictory, or not in the shape its format demands
UNSUPPORTED = "lora_unsupported"  # an honest format that is not read here
NO_TENSORS = "lora_no_tensors"
UNSAFE_PICKLE = "lora_unsafe_pickle"  # asks a loader to import, call or set something
TOO_COMPLEX = "lora_pickle_too_complex"  # beyond a budget of the reader
ZIP_AMBIGUOUS = "lora_zip_ambiguous"  # two zip readers could see different content
TENSOR_BOUNDS = "lora_tensor_bounds"  # a view reaches outside its storage

RESAVE = "save it again with torch.save's default protocol 2, or as .safetensors"
