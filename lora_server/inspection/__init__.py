"""Tensor table and metadata in, facts about the adapter out: pure.

A file travels: suffixes (name → module and part) → families and geometry (what a module is,
its rank and widths) → paths and layout (a few dozen patterns) → detection (base_keys,
base_shapes and claims → base model with evidence) → adapter, triggers, training, hashes,
cautions → record. Caches here hold pure functions of layer names and nothing of any file's owner.
"""

from lora_server.inspection.inspecting import inspect, refuse_misfits
from lora_server.inspection.record import Confidence, Inspection

__all__ = ["Confidence", "Inspection", "inspect", "refuse_misfits"]
