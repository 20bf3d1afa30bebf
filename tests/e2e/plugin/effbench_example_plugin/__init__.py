"""Techniques of another package: effbench finds them by the entry point and reads them without importing."""
