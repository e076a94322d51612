"""Run the `sangha` command in this process."""

from click.testing import CliRunner, Result

from ops.cli import main


def sangha(*arguments: str, stdin: str = "") -> Result:
    """Run a command and return its exit code and output."""
    return CliRunner().invoke(main, arguments, input=stdin)
