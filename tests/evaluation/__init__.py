"""Claims about evaluations, made from files whose every weight is known."""
