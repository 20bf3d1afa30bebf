"""Toy area early_exit."""
