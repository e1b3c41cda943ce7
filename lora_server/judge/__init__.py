"""Hostile bytes are read in child processes: pool -> wire -> child -> jobs, and back."""
