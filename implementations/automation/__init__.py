"""Automation: searching settings under a budget of epochs, replayed from a table of trained networks."""
