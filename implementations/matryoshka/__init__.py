"""Matryoshka representations: embeddings whose prefixes are embeddings, and what a search or a classifier saves by them."""
