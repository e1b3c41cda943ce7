"""LoRA weights over HTTP: what travels where, module by module."""
