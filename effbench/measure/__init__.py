"""How numbers are made. Nothing here imports a framework at import time."""

# Raised by hand when a change makes new numbers incomparable with old ones; part of every environment and content key.
MEASURE_VERSION = 1
