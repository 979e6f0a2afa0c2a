"""`python -m quickstudy`: the command line."""

from quickstudy.cli.main import main

main()
