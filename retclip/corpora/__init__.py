"""Readers of labelled picture collections."""
