"""Networks of our own. Segmenters never read one another; what two share stands in `layers`."""
