"""Techniques that break every rule, one rule each, beside honest ones."""
