"""What a person looks at, or another program reads, after a segmentation."""
