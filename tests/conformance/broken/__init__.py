"""Techniques that each break one rule, for the checker."""
