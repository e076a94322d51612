"""What all commands share: options, settings, and errors as one line."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from models.platform.errors import ConfigurationError, SanghaError
from ops.exit_codes import MISCONFIGURED, UNAVAILABLE

if TYPE_CHECKING:
    from models.platform.settings import Settings

data_dir = click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for all data. [default: SANGHA_DATA_DIR, or .sangha]",
)
verbose = click.option("-v", "--verbose", is_flag=True, help="Log debug messages too.")


class OneLineErrors(click.Group):
    """A group of commands that print Sangha's own errors as one line, without a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command and map its errors to exit codes."""
        try:
            return super().invoke(ctx)
        except ConfigurationError as error:
            fail(str(error), MISCONFIGURED)
        except SanghaError as error:
            fail(str(error), UNAVAILABLE)
        except ModuleNotFoundError as error:
            fail(f"the Python package {error.name} is missing: run `make install`", MISCONFIGURED)


def fail(message: str, code: int) -> None:
    """Print one line to standard error and exit."""
    click.echo(f"sangha: {' '.join(message.split())}", err=True)
    sys.exit(code)


def prepare(verbose: bool = False, *, quiet: bool = False, **overrides: object) -> "Settings":
    """Load the settings and configure logging; command-line options override the environment."""
    from models.platform.settings import load_settings
    from models.platform.tracing import start_tracing, stop_tracing
    from ops.error_reports import PROCESSES, start_error_reports
    from ops.logs import configure_logging
    from ops.version import version
    from pipelines.inference.registry import engine_spec

    settings = load_settings(**{field: value for field, value in overrides.items() if value is not None})
    context = click.get_current_context(silent=True)
    process = (context.info_name if context else None) or "sangha"
    configure_logging(
        log_format=settings.log_format,
        level=settings.log_level,
        process=process,
        verbose=verbose,
        quiet=quiet,
    )
    start_error_reports(settings, process)
    if context is not None and process in PROCESSES:
        start_tracing(process, version())
        context.call_on_close(stop_tracing)
    engine_spec(settings)  # an unknown engine, or one that lacks a setting, ends every command
    return settings
