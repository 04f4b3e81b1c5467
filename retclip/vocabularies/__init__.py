"""Class lists: those that come with the package, and those that users write."""

from retclip.vocabularies.loading import available_vocabularies, load_vocabulary

__all__ = ["available_vocabularies", "load_vocabulary"]
