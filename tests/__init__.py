"""Claims about what lora_server does, made from outside."""
