"""Claims about the lora-server command, made on real processes."""
