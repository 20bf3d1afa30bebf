"""Vector search from outside."""
