"""The HTTP client, against real servers and bad connections."""
