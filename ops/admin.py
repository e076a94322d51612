"""`sangha admin`: who may work across accounts."""

import sys

import click

from models.accounts import operators
from models.platform.errors import ConfigurationError, RequestError
from models.platform.settings import Settings
from ops.operator import connected, table
from pipelines.accounts import operators as staff
from pipelines.accounts.signup import normal_address

#: Bytes of standard input that can be a password.
LONGEST = 8192


def create_admin(settings: Settings, email: str, *, password_stdin: bool) -> None:
    """Make somebody an operator; only a new user needs a password. Raises ConfigurationError in one line."""
    try:
        address = normal_address(email)
        click.echo(_known(settings, address) or _new(settings, address, password_stdin))
    except RequestError as error:
        raise ConfigurationError(error.message) from None


def list_admins(settings: Settings) -> None:
    """One line an operator."""
    with connected(settings) as connection:
        found = operators.list_operators(connection)
    if not found:
        click.echo("No operators. Make one: sangha admin create EMAIL")
        return
    rows = [[operator.email, operator.id, f"{operator.created_at:%Y-%m-%d %H:%M:%S}"] for operator in found]
    table(["email", "user", "user since"], rows)


def revoke_admin(settings: Settings, email: str) -> None:
    """Make an operator a user like others. Raises ConfigurationError when there is none of that address."""
    try:
        with connected(settings) as connection:
            staff.dismiss(connection, normal_address(email))
    except RequestError as error:
        raise ConfigurationError(error.message) from None
    click.echo(f"{email} is no operator any more.")


def _known(settings: Settings, address: str) -> str | None:
    with connected(settings) as connection:
        known = operators.find(connection, address)
        appointed = known is not None and staff.appoint(connection, known[0])
    if known is None:
        return None
    return f"{address} is an operator{' now' if appointed else ' already'}, with the password as it was."


def _new(settings: Settings, address: str, password_stdin: bool) -> str:
    password = _piped() if password_stdin else _asked(address)
    with connected(settings) as connection:
        staff.create(connection, address, password)
    return f"{address} is an operator now: POST /login, or the page at /, lets them in."


def _piped() -> str:
    """The first line of standard input."""
    return sys.stdin.readline(LONGEST).rstrip("\r\n")


def _asked(address: str) -> str:
    if not sys.stdin.isatty():
        raise ConfigurationError("there is no terminal to ask for a password at: pipe it in, with --password-stdin")
    password: str = click.prompt(f"Password for {address}", hide_input=True, confirmation_prompt=True)
    return password
