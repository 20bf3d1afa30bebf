"""Data sets: what exists (catalog), where it is kept (cache), how it is fetched, checked, carried and read."""
