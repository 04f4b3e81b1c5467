"""How good a segmentation is: exact metrics over images that stream by, and what they say about a run."""
