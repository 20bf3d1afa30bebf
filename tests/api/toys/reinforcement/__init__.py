"""Toy area reinforcement."""
