"""Toy area experts."""
