"""Sums of squares, as slow, as large and as wrong as a branch makes them."""
