"""Attention: exact softmax attention and what wants to replace it."""
