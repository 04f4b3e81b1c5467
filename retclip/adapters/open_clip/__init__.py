"""CLIP as the open_clip library builds it: image towers with dense features, and the text tower beside them."""

from retclip.adapters.open_clip.encoder import OpenClipEncoder
from retclip.adapters.open_clip.loading import load_open_clip

__all__ = ["OpenClipEncoder", "load_open_clip"]
