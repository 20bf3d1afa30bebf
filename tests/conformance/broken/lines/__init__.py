"""Straight lines."""
