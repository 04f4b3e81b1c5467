"""Building blocks that more than one segmenter uses."""
