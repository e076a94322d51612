"""Signing up and logging in: from an address and a password to a token."""

from dataclasses import dataclass

import email_validator

from models import accounts, sessions
from models.accounts import Caller, Membership
from models.database import Connection, Database
from models.errors import InvalidRequest, NotAllowed, NotAuthenticated
from pipelines.accounts import passwords
from pipelines.accounts.tokens import LIFETIME, Tokens

# Names of a home or office network are good enough for an installation that stands in one.
email_validator.SPECIAL_USE_DOMAIN_NAMES.remove("local")


@dataclass(frozen=True, slots=True)
class Entry:
    """What a signup or a login gives: who it is, and a token that holds `expires_in` seconds."""

    caller: Caller
    email: str
    token: str
    expires_in: int


def sign_up(database: Database, tokens: Tokens, *, email: str, password: str) -> Entry:
    """A new user with an account of their own.

    Raises InvalidRequest for a malformed address or a weak password, and Conflict `email_taken`.
    """
    address = normal_address(email)
    passwords.check_strength(password)
    password_hash = passwords.hash_password(password)
    with database.transaction() as connection:
        membership = accounts.create(connection, email=address, password_hash=password_hash)
        session_id = sessions.create(connection, membership.user_id)
    return _enter(tokens, membership, address, session_id)


def log_in(database: Database, tokens: Tokens, *, email: str, password: str, account_id: str | None = None) -> Entry:
    """The token of a known user, for the named account or their oldest one.

    Raises NotAuthenticated `invalid_credentials`, alike for an unknown address and a wrong password, and NotAllowed
    for an account that the user doesn't belong to.
    """
    with database.connection() as connection:
        user = accounts.find_by_email(connection, _known_address(email))
    # No connection is held while the password is checked: that takes a core for tens of milliseconds.
    stored = user.password_hash if user else None
    if not passwords.verify(stored, password) or user is None:
        raise NotAuthenticated("The e-mail address or the password is wrong.", code="invalid_credentials")
    with database.connection() as connection:
        _refresh_hash(connection, user, password)
        membership = _choose(accounts.memberships(connection, user.id), account_id)
        session_id = sessions.create(connection, user.id)
    return _enter(tokens, membership, user.email, session_id)


def normal_address(email: str) -> str:
    """The address as it is stored. Raises InvalidRequest when it isn't one; whether it takes mail is not asked."""
    try:
        checked = email_validator.validate_email(
            email, check_deliverability=False, test_environment=True, globally_deliverable=False
        )
    except email_validator.EmailNotValidError as error:
        raise InvalidRequest(str(error), param="email", code="invalid_email") from None
    return checked.normalized


def _known_address(email: str) -> str:
    """The address as signing up would have stored it; what is no address is looked up as it is, and not found."""
    try:
        return normal_address(email)
    except InvalidRequest:
        return email


def _refresh_hash(connection: Connection, user: accounts.User, password: str) -> None:
    if user.password_hash and passwords.needs_rehash(user.password_hash):
        accounts.set_password(connection, user.id, passwords.hash_password(password))


def _choose(memberships: list[Membership], account_id: str | None) -> Membership:
    for membership in memberships:
        if account_id in (None, membership.account_id):
            return membership
    raise NotAllowed("You do not belong to this account.", param="account", code="not_a_member")


def _enter(tokens: Tokens, membership: Membership, email: str, session_id: str) -> Entry:
    caller = Caller(membership.user_id, membership.account_id, membership.role, session_id=session_id)
    return Entry(caller, email, tokens.issue(caller), LIFETIME)
