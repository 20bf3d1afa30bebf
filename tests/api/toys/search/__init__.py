"""Toy area search."""
