"""CLIP as the open_clip library builds it: image towers with dense features, and the text tower beside them."""
