"""FC-CLIP: open-vocabulary panoptic segmentation with one frozen convolutional CLIP (Yu et al., NeurIPS 2023)."""
