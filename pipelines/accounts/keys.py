"""Create, change and revoke API keys. A key has at most the rights of its creator's role.

A secret is `sk-`, 43 random characters (256 bits) and their CRC-32, so that a mistyped one is rejected without a query.
It is returned once, at creation.
"""

import secrets
import string
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from models.access import api_keys
from models.access.api_keys import ApiKey
from models.accounts import audit
from models.accounts.accounts import Caller, KeyMemory, Role, Scope
from models.accounts.audit import RequestOrigin
from models.accounts.residency import Residency
from models.platform.database import Connection, Database
from models.platform.errors import Conflict, InvalidRequest, NotAllowed, NotFound
from models.platform.secrets import hash_secret

#: The prefix of API keys; access tokens never have it.
PREFIX = "sk-"

ALPHABET = string.ascii_letters + string.digits

#: Random characters of a secret: 43 out of 62 are a little more than 256 bits.
RANDOM_LENGTH = 43

#: The scopes of a key that names none.
DEFAULT_SCOPES = (Scope.READ, Scope.WRITE, Scope.INFERENCE)

#: Scope → the lowest role whose members may create a key with it; any member may use the others.
REQUIRED_ROLES = {Scope.BILLING: Role.ADMIN, Scope.ADMIN: Role.ADMIN}

#: Active keys that a member may have in an account.
MAX_KEYS = 100


@dataclass(frozen=True, slots=True)
class NewApiKey:
    """The fields of a key to create. `expires_at` None: it is valid until it is revoked."""

    name: str
    scopes: tuple[Scope, ...] = DEFAULT_SCOPES
    expires_at: datetime | None = None
    memory: KeyMemory = "named"
    residency: Residency | None = None
    models: Sequence[str] | None = None


def make_secret() -> str:
    """Generate the secret of a key."""
    body = PREFIX + "".join(secrets.choice(ALPHABET) for _ in range(RANDOM_LENGTH))
    return body + _checksum(body)


def is_well_formed(secret: str) -> bool:
    """Return whether the secret has the format and the checksum of an API key."""
    body, checksum = secret[:-8], secret[-8:]
    has_format = secret.isascii() and len(body) == len(PREFIX) + RANDOM_LENGTH and body.startswith(PREFIX)
    return has_format and checksum == _checksum(body)


def create(
    database: Database, caller: Caller, new: NewApiKey, key_id: str, origin: RequestOrigin
) -> tuple[ApiKey, str]:
    """Create a key of the caller; returns it with its secret, which is not stored.

    Raises InvalidRequest for an expiry in the past, NotAllowed for a scope above the caller's role, and Conflict
    `too_many_keys`.
    """
    _check_expiry(new.expires_at)
    secret = make_secret()
    with database.transaction() as connection:
        _check_creator(connection, caller, new.scopes, key_id)
        key = _insert(connection, caller, new, key_id, secret)
        details = {"name": key.name, "scopes": list(key.scopes), "memory": key.memory, **_restrictions(key)}
        _record(connection, "key.created", caller, origin, key_id, details)
    return key, secret


def change(
    database: Database,
    caller: Caller,
    key_id: str,
    origin: RequestOrigin,
    *,
    name: str | None = None,
    memory: KeyMemory | None = None,
    residency: Residency | None = None,
    change_expiry: bool = False,
    expires_at: datetime | None = None,
    change_models: bool = False,
    models: Sequence[str] | None = None,
) -> ApiKey:
    """Change the name, the memory and the residency of a key, with `change_expiry` and `change_models` also those.

    Raises NotFound, InvalidRequest, NotAllowed for a later expiry of another member's key or its access to their
    memories, and Conflict `key_ended` for a revoked or expired key.
    """
    _check_expiry(expires_at)
    with database.transaction() as connection:
        current = find(connection, caller, key_id)
        if change_expiry:
            _check_extension(caller, current, expires_at)
        if memory == "owner":
            _check_memory(caller, current)
        key = api_keys.update(
            connection, key_id, caller.account_id,
            name=name, memory=memory, residency=residency, set_expiry=change_expiry, expires_at=expires_at,
            set_models=change_models, models=models,
        )  # fmt: skip
        if key is None:
            raise Conflict("This API key has been revoked or has expired. Create a new one.", code="key_ended")
        details = {"name": key.name, "memory": key.memory, "expires_at": key.expires_at, **_restrictions(key)}
        _record(connection, "key.changed", caller, origin, key_id, details)
    return key


def revoke(database: Database, caller: Caller, key_id: str, origin: RequestOrigin) -> None:
    """Revoke a key, from the next request on. Revoking it again has no effect. Raises NotFound."""
    with database.transaction() as connection:
        key = find(connection, caller, key_id)
        if api_keys.revoke(connection, key_id, caller.account_id):
            _record(connection, "key.revoked", caller, origin, key_id, {"name": key.name})


def find(connection: Connection, caller: Caller, key_id: str) -> ApiKey:
    """Return a key that the caller may see. Raises NotFound."""
    key = api_keys.read(connection, key_id, caller.account_id, user_id=owner_filter(caller))
    if key is None:
        raise NotFound(f"API key with id '{key_id}' not found.", param="key_id")
    return key


def owner_filter(caller: Caller) -> str | None:
    """Return the user whose keys the caller sees and manages; None for an admin, who sees all keys of the account."""
    return None if caller.role.covers(Role.ADMIN) else caller.user_id


def _check_expiry(expires_at: datetime | None) -> None:
    if expires_at is not None and expires_at <= datetime.now(UTC):
        raise InvalidRequest("'expires_at' is in the past: the key would never be valid.", param="expires_at")


def _check_memory(caller: Caller, key: ApiKey) -> None:
    """Raise NotAllowed unless the caller created the key: only its creator can give it their memories."""
    if key.user_id != caller.user_id:
        message = "Only the user who created an API key can give it their memories."
        raise NotAllowed(message, param="memory", code="not_your_key")


def _check_extension(caller: Caller, key: ApiKey, expires_at: datetime | None) -> None:
    """Check that only a key's creator, for whom it acts, makes it valid for longer."""
    extends = key.expires_at is not None and (expires_at is None or expires_at > key.expires_at)
    if extends and key.user_id != caller.user_id:
        message = "Only the user who created an API key can extend it; others can shorten or revoke it."
        raise NotAllowed(message, param="expires_at", code="not_your_key")


def _check_creator(connection: Connection, caller: Caller, scopes: tuple[Scope, ...], key_id: str) -> None:
    """Check the creator's current role, which may have changed since the request was authenticated."""
    role = api_keys.lock_creator_role(connection, caller.account_id, caller.user_id)
    if role is None:
        raise NotAllowed("You are no longer a member of this account.")
    for scope in scopes:
        if not role.covers(REQUIRED_ROLES.get(scope, Role.MEMBER)):
            raise NotAllowed(
                f"The scope '{scope}' requires the role {REQUIRED_ROLES[scope]}; yours is {role}.", param="scopes"
            )
    if api_keys.count_active(connection, caller.account_id, caller.user_id, except_key_id=key_id) >= MAX_KEYS:
        message = f"You have {MAX_KEYS} active API keys, which is the limit. Revoke one first."
        raise Conflict(message, code="too_many_keys")


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
        memory=new.memory,
        residency=new.residency,
        models=new.models,
    )


def _restrictions(key: ApiKey) -> Mapping[str, object]:
    models = {} if key.key_models is None else {"models": key.key_models}
    return {**({"residency": key.key_residency} if key.key_residency else {}), **models}


def _record(
    connection: Connection,
    action: str,
    caller: Caller,
    origin: RequestOrigin,
    key_id: str,
    details: Mapping[str, object],
) -> None:
    key_details = {"by_key": caller.key_id} if caller.key_id else {}
    audit.record(
        connection,
        action,
        origin,
        account_id=caller.account_id,
        user_id=caller.user_id,
        target=key_id,
        details={**details, **key_details},
    )


def _checksum(body: str) -> str:
    return f"{zlib.crc32(body.encode()):08x}"
