"""Coverage-guided fuzzing of the two parsers; `make fuzz` runs it, pytest does not."""
