"""Toy area training."""
