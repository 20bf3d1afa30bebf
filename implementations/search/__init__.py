"""Vector search: the k nearest rows of a table for every query."""
