"""One foreign library each, behind our ports."""
