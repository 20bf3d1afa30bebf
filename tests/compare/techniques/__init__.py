"""Techniques of the repositories that tests compare."""
