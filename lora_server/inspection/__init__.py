"""Tensor table and metadata in, facts about the adapter out: pure."""
