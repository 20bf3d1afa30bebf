"""Faults of methods that are built and then called."""
