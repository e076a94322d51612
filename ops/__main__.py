"""`python -m ops` is `sangha`."""

from ops.cli import main

main(prog_name="sangha")
