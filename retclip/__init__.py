"""Open-vocabulary panoptic segmentation taught by adding examples, not by training."""

__version__ = "0.1.0"
