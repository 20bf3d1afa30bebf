"""Benchmarks for asv (airspeed velocity), made from a suite."""
