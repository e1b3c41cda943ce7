"""Evaluations, from the numbers to the service."""
