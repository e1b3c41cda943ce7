"""How good is this LoRA? Plans, measurements, judgement, reports; no HTTP in here."""
