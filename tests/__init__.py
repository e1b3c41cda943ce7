"""Claims about lora_server, made from outside."""
