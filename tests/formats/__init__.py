"""Claims about the readers of model files."""
