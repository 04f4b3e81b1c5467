"""Grounding DINO and MM-Grounding-DINO: things found by their names (arXiv 2303.05499, 2401.02361)."""

from retclip.adapters.grounding_dino.detector import GroundingDino
from retclip.adapters.grounding_dino.loading import count_prompts, load_grounding_dino

__all__ = ["GroundingDino", "count_prompts", "load_grounding_dino"]
