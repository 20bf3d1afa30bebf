"""Faults of methods that are only built, step by step."""
