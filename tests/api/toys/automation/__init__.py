"""Toy area automation."""
