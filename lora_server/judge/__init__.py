"""Hostile bytes are read in child processes: pool -> wire -> child -> jobs, and back."""

from lora_server.judge.pool import JudgePool

__all__ = ["JudgePool"]
