"""Compression: the same network in fewer bytes or fewer operations, at the same training budget."""
