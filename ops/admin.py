"""`sangha admin`: create, list and revoke operators."""

import sys

import click

from models.accounts import operators
from models.platform.errors import ConfigurationError, RequestError
from models.platform.settings import Settings
from ops.database_connection import transaction
from ops.table import align_columns
from pipelines.accounts import operators as staff
from pipelines.accounts.signup import normalize_email

#: Bytes read from standard input for a password.
MAX_PASSWORD_INPUT = 8192

HEADINGS = ("email", "user", "user since")


def create_admin(settings: Settings, email: str, *, password_stdin: bool) -> None:
    """Make a user an operator, or create one with a password. Raises ConfigurationError for invalid input."""
    try:
        address = normalize_email(email)
        click.echo(_appoint_user(settings, address) or _create_user(settings, address, password_stdin))
    except RequestError as error:
        raise ConfigurationError(error.message) from None


def list_admins(settings: Settings) -> None:
    """Print one line per operator."""
    with transaction(settings) as connection:
        rows = operators.list_operators(connection)
    if not rows:
        click.echo("No operators. Create one: sangha admin create EMAIL")
        return
    cells = [[operator.email, operator.id, f"{operator.created_at:%Y-%m-%d %H:%M:%S}"] for operator in rows]
    click.echo("\n".join(align_columns([HEADINGS, *cells])))


def revoke_admin(settings: Settings, email: str) -> None:
    """Revoke an operator's rights. Raises ConfigurationError when the address is not an operator's."""
    try:
        with transaction(settings) as connection:
            staff.revoke(connection, normalize_email(email))
    except RequestError as error:
        raise ConfigurationError(error.message) from None
    click.echo(f"{email} is no longer an operator.")


def _appoint_user(settings: Settings, address: str) -> str | None:
    with transaction(settings) as connection:
        known = operators.find(connection, address)
        appointed = known is not None and staff.grant(connection, known[0])
    if known is None:
        return None
    return f"{address} is {'now' if appointed else 'already'} an operator; the password is unchanged."


def _create_user(settings: Settings, address: str, password_stdin: bool) -> str:
    password = _read_password() if password_stdin else _prompt_password(address)
    with transaction(settings) as connection:
        staff.create(connection, address, password)
    return f"{address} is now an operator and can log in with POST /login or at /."


def _read_password() -> str:
    """Read the first line of standard input."""
    return sys.stdin.readline(MAX_PASSWORD_INPUT).rstrip("\r\n")


def _prompt_password(address: str) -> str:
    if not sys.stdin.isatty():
        raise ConfigurationError("cannot prompt for a password without a terminal: pipe it to --password-stdin")
    password: str = click.prompt(f"Password for {address}", hide_input=True, confirmation_prompt=True)
    return password
