"""`python -m effbench` is the command `effbench`."""

from .cli import main

main()
