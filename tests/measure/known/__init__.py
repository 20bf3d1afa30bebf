"""Methods whose cost is known beforehand."""
