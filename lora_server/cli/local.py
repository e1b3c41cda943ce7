"""The embedded default: a server to try out, with nothing to set up and nothing left elsewhere."""

import time
from pathlib import Path

from lora_server.config import Config
from lora_server.jwt_keys import load_keys, new_secret
from lora_server.tokens import mint

TOKEN_TTL_S = 12 * 3600.0


def prepared(config: Config, folder: Path) -> Config:
    """Return the settings with every path under `folder`, where a key is made if there is none."""
    folder.mkdir(parents=True, exist_ok=True)
    key_file = folder / "jwt.key"
    if not key_file.exists():
        key_file.touch(mode=0o600, exist_ok=False)
        key_file.write_bytes(new_secret())
    storage = config.storage.model_copy(
        update={
            "models_dir": folder / "models" / "loras",
            "bin_dir": folder / "bin" / "models" / "loras",
            "staging_dir": folder / "staging",
            "state_dir": folder / "state",
        }
    )
    auth = config.auth.model_copy(
        update={"key_file": key_file, "keys": (), "revoked_file": folder / "revoked.jsonl"}
    )
    return config.model_copy(update={"storage": storage, "auth": auth})


def greeting(config: Config, folder: Path) -> str:
    """Return what to paste first: a token for an admin, and an upload that works as it stands."""
    example = folder / "example.safetensors"
    example.write_bytes(_example_lora())
    admin_key = load_keys(config.auth, credentials=None)[0]
    token = mint(
        admin_key,
        subject="local-admin",
        scope=config.auth.admin_scope,
        ttl_s=min(TOKEN_TTL_S, config.auth.max_ttl),
        audience=config.auth.audience,
        issuer=config.auth.issuer,
        now=time.time(),
    )
    url = f"http://{config.server.host}:{config.server.port}"
    api = f"{url}{config.server.base_path}"
    header = '-H "Authorization: Bearer $TOKEN"'
    return f"""
An admin token, good for {TOKEN_TTL_S / 3600:g} hours:

  export TOKEN={token}

In another terminal:

  curl {header} -F file=@{example} -F entity_type=styles {api}/admin/lora/upload
  curl {header} {api}/admin/lora

The API, as a page: {url}/docs
"""


def _example_lora() -> bytes:
    """Return a LoRA of rank 4 for one attention module of Stable Diffusion 1.5, all zeros."""
    # Imported here: no server that runs for real needs twenty megabytes of numpy.
    import numpy as np  # noqa: PLC0415
    from safetensors.numpy import save  # noqa: PLC0415

    module = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
    tensors = {
        f"{module}.alpha": np.array(4.0, np.float16),
        f"{module}.lora_down.weight": np.zeros((4, 768), np.float16),
        f"{module}.lora_up.weight": np.zeros((320, 4), np.float16),
    }
    return save(tensors, {"ss_base_model_version": "sd_v1"})
