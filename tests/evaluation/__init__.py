"""Claims about evaluations: what is measured, what follows, and what people read of it."""
