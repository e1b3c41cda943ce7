"""What the weights alone tell of a LoRA: numpy, no base model, no GPU."""
