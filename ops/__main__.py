"""Run the `sangha` command by `python -m ops`."""

from ops.cli import main

main(prog_name="sangha")
