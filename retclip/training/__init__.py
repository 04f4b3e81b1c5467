"""Optimisers, losses and loops for the networks we train."""
