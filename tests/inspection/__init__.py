"""Claims about inspection, made from tensor tables as trainers write them."""
