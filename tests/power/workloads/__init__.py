"""Workloads that a known amount of work is added to."""
