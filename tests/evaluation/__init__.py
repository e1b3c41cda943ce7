"""How good a LoRA is: claims about measuring and judging it."""
