"""Everybody who can stand before a route: of an account, of another one, of the staff, and who should not be let in.

A cast is fresh for each route, so that a logout, a revocation or an erasure is felt by nobody else.
"""

import io
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

from models.access import api_keys, sessions
from models.accounts import accounts, invitations
from models.accounts.accounts import Caller, Role, Scope
from models.memory.memories import NewMemory
from models.platform.database import Connection, Database
from models.platform.ids import new_id
from models.platform.secrets import digest, secret_key
from models.platform.settings import Settings
from pipelines.accounts import keys
from pipelines.accounts.tokens import Tokens
from pipelines.memory.writing import write

#: Not known, or not any more: they are asked who they are.
UNAUTHENTICATED = (
    "nobody",
    "garbage token",
    "expired token",
    "garbage key",
    "revoked key",
    "expired key",
    "removed key",
)

#: Of the account that has the things, by the role of the person or the scope of the key, which its owner has made.
#: The demoted key has every scope, and its maker was an admin.
ROLES = ("owner", "admin", "member")
API_KEYS = (*(f"{scope} key" for scope in Scope), "demoted key")

#: Owners of accounts of their own, who have nothing to do with the account.
OTHER_ACCOUNTS = ("stranger", "operator")


class Principals:
    """An account with things in it, and what each visitor shows in the Authorization header."""

    def __init__(self, client: httpx.Client, database: Database, settings: Settings) -> None:
        self.client = client
        self._tokens = client.app.state.platform.tokens  # type: ignore[attr-defined]
        self._past = Tokens(secret_key(settings), clock=lambda: time.time() - 86_400)
        self._rooms: list[str] = []
        self._people: list[str] = []
        self.shows: dict[str, str | None] = {"nobody": None, "garbage token": "x.y.z", "garbage key": "sk-nonsense"}
        with database.batch() as connection:
            self._gather(connection)

    def request(self, principal: str, method: str, path: str, **options: Any) -> httpx.Response:
        """One request. Of an event stream only the beginning is read."""
        shown = self.shows[principal]
        headers = {**({} if shown is None else {"authorization": f"Bearer {shown}"}), **options.pop("headers", {})}
        with self.client.stream(method, path, headers=headers, **options) as answer:
            if "event-stream" not in answer.headers.get("content-type", ""):
                answer.read()
            return answer

    def delete(self, database: Database) -> None:
        """Nobody and nothing stays behind."""
        with database.transaction() as connection:
            connection.execute("DELETE FROM accounts WHERE id = ANY(%s)", (self._rooms,))
            connection.execute("DELETE FROM users WHERE id = ANY(%s)", (self._people,))

    def _gather(self, connection: Connection) -> None:
        self.account_id, self.owner_id = self._settle(connection, "owner")
        for role in (Role.ADMIN, Role.MEMBER):
            self._join(connection, role, role)
        self._settle(connection, "stranger")
        _, operator_id = self._settle(connection, "operator")
        connection.execute("UPDATE users SET operator = true WHERE id = %s", (operator_id,))
        for scope in Scope:
            self.shows[f"{scope} key"], _ = self.key(connection, self.owner_id, scope)
        self._add_ended(connection)

    def _add_ended(self, connection: Connection) -> None:
        demoted, removed = (self._join(connection, name, Role.MEMBER) for name in ("demoted", "removed"))
        self.shows["demoted key"], _ = self.key(connection, demoted, *Scope)
        self.shows["expired token"] = self._past.issue(
            Caller(self.owner_id, self.account_id, Role.OWNER, session_id="sess_old")
        )
        for name in ("revoked", "expired", "removed"):
            maker = removed if name == "removed" else self.owner_id
            self.shows[f"{name} key"], key_id = self.key(connection, maker, *Scope)
            connection.execute(ENDS[name], {"key_id": key_id, "user_id": maker})

    def key(self, connection: Connection, user_id: str, *scopes: Scope) -> tuple[str, str]:
        """The secret and the id of a new key."""
        secret, key_id = keys.make_secret(), new_id("key")
        tomorrow = datetime.now(UTC) + timedelta(days=1)
        belongs = {"key_id": key_id, "account_id": self.account_id, "user_id": user_id}
        opens = {"secret_hash": digest(secret), "scopes": scopes, "expires_at": tomorrow}
        api_keys.insert(connection, name="of the cast", hint="sk-…", **belongs, **opens)
        return secret, key_id

    def session(self, connection: Connection, user_id: str) -> str:
        """A new session's id."""
        return sessions.create(connection, user_id)

    def _settle(self, connection: Connection, name: str) -> tuple[str, str]:
        """Somebody with an account of their own: its id and theirs."""
        member = accounts.create(connection, email=f"{new_id(name)}@example.com", password_hash=None)
        self._rooms.append(member.account_id)
        self._let_in(connection, name, member.user_id, member.account_id, member.role)
        return member.account_id, member.user_id

    def _join(self, connection: Connection, name: str, role: Role) -> str:
        """Somebody else in the owner's account."""
        user_id = new_id("user")
        connection.execute("INSERT INTO users (id, email) VALUES (%s, %s)", (user_id, f"{user_id}@example.com"))
        connection.execute(
            "INSERT INTO memberships (account_id, user_id, role) VALUES (%s, %s, %s)", (self.account_id, user_id, role)
        )
        self._let_in(connection, name, user_id, self.account_id, role)
        return user_id

    def _let_in(self, connection: Connection, name: str, user_id: str, account_id: str, role: Role) -> None:
        self._people.append(user_id)
        session_id = self.session(connection, user_id)
        self.shows[name] = self._tokens.issue(Caller(user_id, account_id, role, session_id=session_id))

    def bystander(self, connection: Connection) -> str:
        """One more member, who asks for nothing."""
        return self._join(connection, "bystander", Role.MEMBER)


#: How a key ends.
ENDS: Mapping[str, str] = {
    "revoked": "UPDATE api_keys SET revoked_at = now() WHERE id = %(key_id)s",
    "expired": "UPDATE api_keys SET expires_at = now() - interval '1 minute' WHERE id = %(key_id)s",
    "removed": "DELETE FROM memberships WHERE user_id = %(user_id)s",
}


class Resources:
    """What the cast's account has, made when a route's path asks for it: `things["response_id"]`."""

    def __init__(self, principals: Principals, database: Database) -> None:
        self._cast = principals
        self._database = database
        self._made: dict[str, str] = {"account_id": principals.account_id}

    def __getitem__(self, parameter: str) -> str:
        """The id that stands for a parameter of a path."""
        if parameter not in self._made:
            self._made.update(RESOURCE_FACTORIES[parameter](self._cast, self._database))
        return self._made[parameter]


def _turn(principals: Principals, database: Database) -> dict[str, str]:
    body = {"input": "hello", "background": True, "conversation": _conversation(principals)}
    response = _made(principals.request("owner", "POST", "/v1/responses", json=body))
    jobs = _made(principals.request("owner", "GET", "/v1/jobs"))
    items = _made(principals.request("owner", "GET", f"/v1/conversations/{body['conversation']}/items"))
    return {
        "response_id": response["id"],
        "conversation_id": body["conversation"],
        "job_id": jobs["data"][0]["id"],
        "item_id": items["data"][0]["id"],
    }


def _conversation(principals: Principals) -> str:
    body = {"items": [{"type": "message", "role": "user", "content": "hello"}]}
    return str(_made(principals.request("owner", "POST", "/v1/conversations", json=body))["id"])


def _made(answer: httpx.Response) -> dict[str, Any]:
    assert answer.is_success, answer.text
    made: dict[str, Any] = answer.json()
    return made


def _schedule(principals: Principals, database: Database) -> dict[str, str]:
    body = {"name": "daily", "trigger": {"type": "cron", "expression": "0 9 * * *"}}
    work = {"kind": "turn", "request": {"input": "hello"}}
    return {
        "schedule_id": _made(principals.request("owner", "POST", "/v1/schedules", json={**body, "work": work}))["id"]
    }


def _key(principals: Principals, database: Database) -> dict[str, str]:
    with database.transaction() as connection:
        return {"key_id": principals.key(connection, principals.bystander(connection), Scope.READ)[1]}


def _session(principals: Principals, database: Database) -> dict[str, str]:
    with database.transaction() as connection:
        return {"session_id": principals.session(connection, principals.owner_id)}


def _member(principals: Principals, database: Database) -> dict[str, str]:
    with database.transaction() as connection:
        return {"user_id": principals.bystander(connection)}


def _invitation(principals: Principals, database: Database) -> dict[str, str]:
    with database.transaction() as connection:
        invites = {"email": "guest@example.com", "role": Role.MEMBER, "invited_by": principals.owner_id}
        return {"invitation_id": invitations.create(connection, new_id("inv"), principals.account_id, **invites).id}


def _file(principals: Principals, database: Database) -> dict[str, str]:
    file_id = new_id("file")
    principals.client.app.state.platform.objects.put(f"cast/{file_id}", io.BytesIO(b"x"))  # type: ignore[attr-defined]
    with database.transaction() as connection:
        connection.execute(
            "INSERT INTO files (id, account_id, filename, purpose, content_type, bytes, object_key)"
            " VALUES (%s, %s, 'a.txt', 'export', 'text/plain', 1, %s)",
            (file_id, principals.account_id, f"cast/{file_id}"),
        )
    return {"file_id": file_id}


def _memory(principals: Principals, database: Database) -> dict[str, str]:
    new = NewMemory(new_id("mem"), "hello", "user", datetime.now(UTC))
    write(database, lambda texts: [[1.0] * 384 for _ in texts], principals.account_id, principals.owner_id, [new])
    return {"memory_id": new.id}


def _meditation(principals: Principals, database: Database) -> dict[str, str]:
    return {"meditation_id": str(_made(principals.request("owner", "POST", "/v1/meditations"))["id"])}


#: By the names of path parameters. A route with a new one needs a line here: without a thing that could be seen, a 404
#: for a stranger proves nothing.
RESOURCE_FACTORIES = {
    "response_id": _turn,
    "conversation_id": _turn,
    "job_id": _turn,
    "item_id": _turn,
    "key_id": _key,
    "schedule_id": _schedule,
    "session_id": _session,
    "user_id": _member,
    "invitation_id": _invitation,
    "file_id": _file,
    "memory_id": _memory,
    "meditation_id": _meditation,
}
