"""A report for people: one HTML page with plots, readable without a network or a manual."""

from lora_server.evaluation.page.rendering import POLICY, render

__all__ = ["POLICY", "render"]
