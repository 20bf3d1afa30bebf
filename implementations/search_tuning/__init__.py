"""Tuning the knobs of a search index under a recall or a cost constraint, replayed from a table of a real index."""
