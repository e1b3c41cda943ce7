"""`python -m lora_server` is the lora-server command."""

from lora_server.cli import app

app(prog_name="lora-server")
