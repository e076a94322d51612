"""API keys: made by a person, within what that person's role allows, told once, revoked at once.

A secret is `sk-`, 43 random characters (256 bits) and their CRC-32: a mistyped one is refused without a look-up.
"""

import secrets
import string
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from models.access import api_keys
from models.access.api_keys import ApiKey
from models.accounts import audit
from models.accounts.accounts import Caller, Role, Scope
from models.accounts.audit import RequestOrigin
from models.platform.database import Connection, Database
from models.platform.errors import Conflict, InvalidRequest, NotAllowed, NotFound
from models.platform.secrets import hash_secret

#: What API keys begin with; access tokens never do.
PREFIX = "sk-"

ALPHABET = string.ascii_letters + string.digits

#: 43 characters of 62 are a little more than 256 bits.
LENGTH = 43

#: What a key may do if nobody says otherwise.
DEFAULT_SCOPES = (Scope.READ, Scope.WRITE, Scope.INFERENCE)

#: The least role of who may give a key this scope; any member gives the others.
REQUIRED_ROLES = {Scope.BILLING: Role.ADMIN, Scope.ADMIN: Role.ADMIN}

#: Living keys that a member may have in an account.
MAX_KEYS = 100


@dataclass(frozen=True, slots=True)
class NewApiKey:
    """What is asked for. `expires_at` None: it holds until it is revoked."""

    name: str
    scopes: tuple[Scope, ...] = DEFAULT_SCOPES
    expires_at: datetime | None = None


def make_secret() -> str:
    """A new secret."""
    body = PREFIX + "".join(secrets.choice(ALPHABET) for _ in range(LENGTH))
    return body + _checksum(body)


def is_well_formed(secret: str) -> bool:
    """Whether it can be one of ours: anything else was mistyped, cut off or made up."""
    body, checksum = secret[:-8], secret[-8:]
    shaped = secret.isascii() and len(body) == len(PREFIX) + LENGTH and body.startswith(PREFIX)
    return shaped and checksum == _checksum(body)


def create(database: Database, caller: Caller, new: NewApiKey, key_id: str, origin: RequestOrigin) -> tuple[ApiKey, str]:
    """A new key of the caller's, and its secret, which nobody can read again.

    Raises InvalidRequest for an end in the past, NotAllowed for a scope above the caller's role, Conflict
    `too_many_keys`.
    """
    _check_end(new.expires_at)
    secret = make_secret()
    with database.transaction() as connection:
        _check_maker(connection, caller, new.scopes, key_id)
        key = _insert(connection, caller, new, key_id, secret)
        details = {"name": key.name, "scopes": list(key.scopes)}
        _record(connection, "key.created", caller, origin, key_id, details)
    return key, secret


def change(
    database: Database,
    caller: Caller,
    key_id: str,
    origin: RequestOrigin,
    *,
    name: str | None = None,
    change_expiry: bool = False,
    expires_at: datetime | None = None,
) -> ApiKey:
    """Another name, and if `retime` another end. Raises NotFound, InvalidRequest, and Conflict for what has ended."""
    _check_end(expires_at)
    with database.transaction() as connection:
        find(connection, caller, key_id)
        key = api_keys.update(
            connection, key_id, caller.account_id, name=name, retime=change_expiry, expires_at=expires_at
        )
        if key is None:
            raise Conflict("This key has been revoked or has expired. Make a new one.", code="key_ended")
        details = {"name": key.name, "expires_at": key.expires_at}
        _record(connection, "key.changed", caller, origin, key_id, details)
    return key


def revoke(database: Database, caller: Caller, key_id: str, origin: RequestOrigin) -> None:
    """End a key: the next request that shows it is refused. Harmless to repeat. Raises NotFound."""
    with database.transaction() as connection:
        key = find(connection, caller, key_id)
        if api_keys.revoke(connection, key_id, caller.account_id):
            _record(connection, "key.revoked", caller, origin, key_id, {"name": key.name})


def find(connection: Connection, caller: Caller, key_id: str) -> ApiKey:
    """A key that the caller may see. Raises NotFound."""
    key = api_keys.read(connection, key_id, caller.account_id, user_id=owner_filter(caller))
    if key is None:
        raise NotFound(f"API key with id '{key_id}' not found.", param="key_id")
    return key


def owner_filter(caller: Caller) -> str | None:
    """Whose keys the caller sees and manages: their own, or as an admin everybody's in the account (None)."""
    return None if caller.role.covers(Role.ADMIN) else caller.user_id


def _check_end(expires_at: datetime | None) -> None:
    if expires_at is not None and expires_at <= datetime.now(UTC):
        raise InvalidRequest("This time has passed: the key would never hold.", param="expires_at")


def _check_maker(connection: Connection, caller: Caller, scopes: tuple[Scope, ...], key_id: str) -> None:
    """What the maker is now counts, not what they were when the request came in."""
    role = api_keys.lock_creator_role(connection, caller.account_id, caller.user_id)
    if role is None:
        raise NotAllowed("You do not belong to this account any more.")
    for scope in scopes:
        if not role.covers(REQUIRED_ROLES.get(scope, Role.MEMBER)):
            raise NotAllowed(
                f"The scope '{scope}' takes the role {REQUIRED_ROLES[scope]}; yours is {role}.", param="scopes"
            )
    if api_keys.count_active(connection, caller.account_id, caller.user_id, beside=key_id) >= MAX_KEYS:
        raise Conflict(f"You have {MAX_KEYS} keys that hold. Revoke one first.", code="too_many_keys")


def _insert(connection: Connection, caller: Caller, new: NewApiKey, key_id: str, secret: str) -> ApiKey:
    return api_keys.insert(
        connection,
        key_id=key_id,
        account_id=caller.account_id,
        user_id=caller.user_id,
        name=new.name,
        hint=f"{secret[:7]}…{secret[-4:]}",
        secret_hash=hash_secret(secret),
        scopes=new.scopes,
        expires_at=new.expires_at,
    )


def _record(
    connection: Connection,
    action: str,
    caller: Caller,
    origin: RequestOrigin,
    key_id: str,
    details: Mapping[str, object],
) -> None:
    by = {"by_key": caller.key_id} if caller.key_id else {}
    audit.record(
        connection,
        action,
        origin,
        account_id=caller.account_id,
        user_id=caller.user_id,
        target=key_id,
        details={**details, **by},
    )


def _checksum(body: str) -> str:
    return f"{zlib.crc32(body.encode()):08x}"
