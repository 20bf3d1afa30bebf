"""Toy area retrieval."""
