"""One task, four methods."""
