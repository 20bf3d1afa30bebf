"""Slow and steady techniques that leave a trace of every build, for tests of interruption."""
