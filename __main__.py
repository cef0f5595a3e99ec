"""`python -m aqa`: the command line."""

from aqa.cli import main

main()
