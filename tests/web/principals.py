"""Every kind of caller of a route: each role and key scope of an account, other accounts, operators, bad credentials.

Principals are created for each test, so that a logout, a revocation or an erasure does not affect another test.
"""

import io
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import httpx
from psycopg.types.json import Jsonb

from models.access import api_keys, sessions
from models.accounts import accounts, invitations
from models.accounts.accounts import Caller, Role, Scope
from models.billing import billing_details, payments
from models.billing.invoice_lines import NewLine
from models.delivery import deliveries, events
from models.memory.memories import NewMemory
from models.memory.spaces import SpaceKey
from models.platform.database import Connection, Database
from models.platform.ids import new_id
from models.platform.secrets import hash_secret, load_secret_key
from models.platform.settings import Settings
from pipelines.accounts import keys
from pipelines.accounts.access_tokens import AccessTokens
from pipelines.billing import credit_note, grants, invoicing
from pipelines.billing.credit_note import NewCreditNote
from pipelines.memory.store import write_memories
from tests.accounts import delete_accounts
from tests.web.approval_requests import request_approval
from tests.web.batch_inputs import store_requests

#: Callers without valid credentials: they get a 401.
UNAUTHENTICATED = (
    "no credentials",
    "garbage token",
    "expired token",
    "garbage key",
    "revoked key",
    "expired key",
    "removed key",
)

#: Callers of the account that owns the resources: users by role, and keys, made by the owner, by scope.
#: The demoted key has every scope; its creator was an admin and is a member now.
ROLES = ("owner", "admin", "member")
API_KEYS = (*(f"{scope} key" for scope in Scope), "demoted key")

#: Owners of other accounts.
OTHER_ACCOUNTS = ("other owner", "operator")


class Principals:
    """An account with users and keys, and the bearer credentials of each principal."""

    def __init__(self, client: httpx.Client, database: Database, settings: Settings) -> None:
        self.client = client
        self._tokens = client.app.state.platform.tokens  # type: ignore[attr-defined]
        self._expired_tokens = AccessTokens(load_secret_key(settings), clock=lambda: time.time() - 86_400)
        self._account_ids: list[str] = []
        self._user_ids: list[str] = []
        self.user_ids: dict[str, str] = {}
        self.credentials: dict[str, str | None] = {
            "no credentials": None,
            "garbage token": "x.y.z",
            "garbage key": "sk-nonsense",
        }
        with database.batch() as connection:
            self._create(connection)

    def request(self, principal: str, method: str, path: str, **options: Any) -> httpx.Response:
        """Send one request as a principal. Of an event stream only the head is read."""
        credential = self.credentials[principal]
        headers = {
            **({} if credential is None else {"authorization": f"Bearer {credential}"}),
            **options.pop("headers", {}),
        }
        with self.client.stream(method, path, headers=headers, **options) as answer:
            if "event-stream" not in answer.headers.get("content-type", ""):
                answer.read()
            return answer

    def delete(self, database: Database) -> None:
        """Delete the accounts and users that were created."""
        delete_accounts(database, self._account_ids, self._user_ids)

    def _create(self, connection: Connection) -> None:
        self.account_id, self.owner_id = self._create_account(connection, "owner")
        self.user_ids = {"owner": self.owner_id} | {
            str(role): self._create_member(connection, role, role) for role in (Role.ADMIN, Role.MEMBER)
        }
        self._create_account(connection, "other owner")
        _, operator_id = self._create_account(connection, "operator")
        connection.execute("UPDATE users SET operator = true WHERE id = %s", (operator_id,))
        for scope in Scope:
            self.credentials[f"{scope} key"], _ = self.create_key(connection, self.owner_id, scope)
        self._create_invalid(connection)

    def _create_invalid(self, connection: Connection) -> None:
        demoted, removed = (self._create_member(connection, name, Role.MEMBER) for name in ("demoted", "removed"))
        self.credentials["demoted key"], _ = self.create_key(connection, demoted, *Scope)
        self.credentials["expired token"] = self._expired_tokens.issue(
            Caller(self.owner_id, self.account_id, Role.OWNER, session_id="sess_old")
        )
        for name in ("revoked", "expired", "removed"):
            creator = removed if name == "removed" else self.owner_id
            self.credentials[f"{name} key"], key_id = self.create_key(connection, creator, *Scope)
            connection.execute(INVALIDATE_KEY[name], {"key_id": key_id, "user_id": creator})

    def create_key(self, connection: Connection, user_id: str, *scopes: Scope) -> tuple[str, str]:
        """Create an API key; returns its secret and id."""
        secret, key_id = keys.make_secret(), new_id("key")
        tomorrow = datetime.now(UTC) + timedelta(days=1)
        owner = {"key_id": key_id, "account_id": self.account_id, "user_id": user_id}
        grants = {"secret_hash": hash_secret(secret), "scopes": scopes, "expires_at": tomorrow}
        api_keys.insert(connection, name="a test", hint="sk-…", memory="owner", **owner, **grants)
        return secret, key_id

    def create_session(self, connection: Connection, user_id: str) -> str:
        """Create a session; returns its id."""
        return sessions.create(connection, user_id)

    def _create_account(self, connection: Connection, name: str) -> tuple[str, str]:
        """Create a user with an account of their own; returns the ids of account and user."""
        member = accounts.create(connection, email=f"{new_id(name)}@example.com", password_hash=None)
        self._account_ids.append(member.account_id)
        self._log_in(connection, name, member.user_id, member.account_id, member.role)
        return member.account_id, member.user_id

    def _create_member(self, connection: Connection, name: str, role: Role) -> str:
        """Create a user in the owner's account; returns their id."""
        user_id = new_id("user")
        connection.execute("INSERT INTO users (id, email) VALUES (%s, %s)", (user_id, f"{user_id}@example.com"))
        connection.execute(
            "INSERT INTO memberships (account_id, user_id, role) VALUES (%s, %s, %s)", (self.account_id, user_id, role)
        )
        self._log_in(connection, name, user_id, self.account_id, role)
        return user_id

    def _log_in(self, connection: Connection, name: str, user_id: str, account_id: str, role: Role) -> None:
        self._user_ids.append(user_id)
        session_id = self.create_session(connection, user_id)
        self.credentials[name] = self._tokens.issue(Caller(user_id, account_id, role, session_id=session_id))

    def create_member(self, connection: Connection) -> str:
        """Create one more member, who sends no requests; returns their id."""
        return self._create_member(connection, "bystander", Role.MEMBER)


#: The statement that invalidates a key.
INVALIDATE_KEY: Mapping[str, str] = {
    "revoked": "UPDATE api_keys SET revoked_at = now() WHERE id = %(key_id)s",
    "expired": "UPDATE api_keys SET expires_at = now() - interval '1 minute' WHERE id = %(key_id)s",
    "removed": "DELETE FROM memberships WHERE user_id = %(user_id)s",
}


class Resources:
    """Resources of a user of the account, created when a path parameter first needs one: `resources["response_id"]`."""

    def __init__(self, principals: Principals, database: Database, person: str = "owner") -> None:
        self._principals = principals
        self._database = database
        self._person = person
        self._ids: dict[str, str] = {"account_id": principals.account_id}

    def __getitem__(self, parameter: str) -> str:
        """Return the id for a path parameter."""
        if parameter not in self._ids:
            self._ids.update(RESOURCE_FACTORIES[parameter](self._principals, self._database, self._person))
        return self._ids[parameter]


def _turn(principals: Principals, database: Database, person: str) -> dict[str, str]:
    body = {"input": "hello", "background": True, "conversation": _conversation(principals, person)}
    response = _json(principals.request(person, "POST", "/v1/responses", json=body))
    jobs = _json(principals.request(person, "GET", "/v1/jobs"))
    items = _json(principals.request(person, "GET", f"/v1/conversations/{body['conversation']}/items"))
    return {
        "response_id": response["id"],
        "conversation_id": body["conversation"],
        "job_id": jobs["data"][0]["id"],
        "item_id": items["data"][0]["id"],
    }


def _completion(principals: Principals, database: Database, person: str) -> dict[str, str]:
    """Create a stored chat completion, without a worker."""
    body = {"input": "hello", "background": True}
    response = _json(principals.request(person, "POST", "/v1/responses", json=body))
    with database.transaction() as connection:
        connection.execute(
            "UPDATE responses SET is_completion = true, usage = %s WHERE id = %s", (Jsonb(USAGE), response["id"])
        )
        connection.execute(
            "UPDATE jobs SET state = 'completed', finished_at = now() WHERE id = %s", (response["job_id"],)
        )
    return {"completion_id": response["id"].replace("resp_", "chatcmpl-")}


#: The usage of a response without tokens.
USAGE = {
    "input_tokens": 0, "output_tokens": 0, "total_tokens": 0, "input_tokens_details": {"cached_tokens": 0},
    "output_tokens_details": {"reasoning_tokens": 0},
}  # fmt: skip


def _conversation(principals: Principals, person: str) -> str:
    body = {"items": [{"type": "message", "role": "user", "content": "hello"}]}
    return str(_json(principals.request(person, "POST", "/v1/conversations", json=body))["id"])


def _json(answer: httpx.Response) -> dict[str, Any]:
    assert answer.is_success, answer.text
    body: dict[str, Any] = answer.json()
    return body


def _schedule(principals: Principals, database: Database, person: str) -> dict[str, str]:
    body = {"name": "daily", "trigger": {"type": "cron", "expression": "0 9 * * *"}}
    work = {"kind": "turn", "request": {"input": "hello"}}
    return {
        "schedule_id": _json(principals.request(person, "POST", "/v1/schedules", json={**body, "work": work}))["id"]
    }


def _agent(principals: Principals, database: Database, person: str) -> dict[str, str]:
    body = {"name": new_id("agent").replace("_", "-"), "instructions": "Be brief."}
    return {"agent_id": _json(principals.request(person, "POST", "/v1/agents", json=body))["id"]}


def _key(principals: Principals, database: Database, person: str) -> dict[str, str]:
    with database.transaction() as connection:
        return {"key_id": principals.create_key(connection, principals.create_member(connection), Scope.READ)[1]}


def _session(principals: Principals, database: Database, person: str) -> dict[str, str]:
    with database.transaction() as connection:
        return {"session_id": principals.create_session(connection, principals.user_ids[person])}


def _member(principals: Principals, database: Database, person: str) -> dict[str, str]:
    with database.transaction() as connection:
        return {"user_id": principals.create_member(connection)}


def _invitation(principals: Principals, database: Database, person: str) -> dict[str, str]:
    with database.transaction() as connection:
        fields = {"email": "guest@example.com", "role": Role.MEMBER, "invited_by": principals.owner_id}
        return {"invitation_id": invitations.create(connection, new_id("inv"), principals.account_id, **fields).id}


def _approval(principals: Principals, database: Database, person: str) -> dict[str, str]:
    response_id = _turn(principals, database, person)["response_id"]
    return {"approval_id": request_approval(database, principals.account_id, response_id, waits=True).id}


def _report(principals: Principals, database: Database, person: str) -> dict[str, str]:
    return {"report_id": _json(principals.request(person, "POST", "/v1/reports", json={"kind": "usage"}))["id"]}


def _mcp_server(principals: Principals, database: Database, person: str) -> dict[str, str]:
    body = {"label": new_id("tests"), "url": "https://mcp.example.com/"}
    return {"server_id": _json(principals.request("owner", "POST", "/v1/mcp_servers", json=body))["id"]}


def _file(principals: Principals, database: Database, person: str) -> dict[str, str]:
    file_id = new_id("file")
    principals.client.app.state.platform.objects.put(f"principals/{file_id}", io.BytesIO(b"x"))  # type: ignore[attr-defined]
    with database.transaction() as connection:
        connection.execute(
            "INSERT INTO files (id, account_id, filename, purpose, content_type, bytes, object_key)"
            " VALUES (%s, %s, 'a.txt', 'export', 'text/plain', 1, %s)",
            (file_id, principals.account_id, f"principals/{file_id}"),
        )
    return {"file_id": file_id}


def _batch(principals: Principals, database: Database, person: str) -> dict[str, str]:
    objects = principals.client.app.state.platform.objects  # type: ignore[attr-defined]
    file_id = store_requests(database, objects, principals.account_id, principals.user_ids[person])
    body = {"input_file_id": file_id, "endpoint": "/v1/responses", "completion_window": "24h"}
    return {"batch_id": _json(principals.request(person, "POST", "/v1/batches", json=body))["id"]}


def _upload(principals: Principals, database: Database, person: str) -> dict[str, str]:
    body = {"bytes": 1, "filename": "a.txt", "mime_type": "text/plain", "purpose": "user_data"}
    return {"upload_id": _json(principals.request(person, "POST", "/v1/uploads", json=body))["id"]}


def _memory(principals: Principals, database: Database, person: str) -> dict[str, str]:
    new = NewMemory(new_id("mem"), "hello", "user", datetime.now(UTC))
    key = SpaceKey(principals.account_id, principals.user_ids[person])
    write_memories(database, lambda texts: [[1.0] * 384 for _ in texts], key, [new])
    return {"memory_id": new.id}


def _invoice(principals: Principals, database: Database, person: str) -> dict[str, str]:
    """Issue an invoice that is paid from credits, with a credit note."""
    account_id, note_id = principals.account_id, new_id("cn")
    with database.transaction() as connection:
        grants.give(connection, account_id, Decimal(5), reason="welcome")
        line = NewLine("fee", "The plan", Decimal(5))
        invoice = invoicing.issue(connection, account_id, reason="subscription", lines=[line])
        new = NewCreditNote("a mistake", Decimal(1), id=note_id)
        credit_note.issue(connection, invoice.id, account_id, new, lambda *refund: None)
    return {"invoice_id": invoice.id, "credit_note_id": note_id}


def _meditation(principals: Principals, database: Database, person: str) -> dict[str, str]:
    return {"meditation_id": str(_json(principals.request(person, "POST", "/v1/meditations"))["id"])}


def _payment(principals: Principals, database: Database, person: str) -> dict[str, str]:
    with database.transaction() as connection:
        billing_details.ensure(connection, principals.account_id, "EUR")
        payment = payments.request_payment(
            connection, principals.account_id, invoice_id=None, amount=Decimal("5.00"), currency="EUR", gateway="manual"
        )
    return {"payment_id": payment.id}


def _payment_method(principals: Principals, database: Database, person: str) -> dict[str, str]:
    body = {"method": "pm_test_visa"}
    return {"payment_method_id": _json(principals.request(person, "POST", "/billing/payment_methods", json=body))["id"]}


def _webhook(principals: Principals, database: Database, person: str) -> dict[str, str]:
    """Create an endpoint, and a delivery to it."""
    body = {"url": "https://example.com/", "event_types": ["*"]}
    endpoint_id = _json(principals.request("owner", "POST", "/v1/webhook_endpoints", json=body))["id"]
    with database.transaction() as connection:
        events.record(connection, principals.account_id, "response.completed", {"id": "resp_1"})
    with database.connection() as connection:
        (delivery, *_) = deliveries.page(connection, principals.account_id, endpoint_id=endpoint_id)
    return {"endpoint_id": endpoint_id, "delivery_id": delivery.id, "event_id": delivery.event_id}


#: By path parameter. A new parameter needs a line here: unless the resource exists, a 404 for another account proves
#: nothing.
RESOURCE_FACTORIES = {
    "response_id": _turn,
    "completion_id": _completion,
    "conversation_id": _turn,
    "job_id": _turn,
    "item_id": _turn,
    "key_id": _key,
    "schedule_id": _schedule,
    "agent_id": _agent,
    "session_id": _session,
    "user_id": _member,
    "invitation_id": _invitation,
    "endpoint_id": _webhook,
    "delivery_id": _webhook,
    "event_id": _webhook,
    "file_id": _file,
    "batch_id": _batch,
    "upload_id": _upload,
    "server_id": _mcp_server,
    "approval_id": _approval,
    "report_id": _report,
    "memory_id": _memory,
    "meditation_id": _meditation,
    "invoice_id": _invoice,
    "credit_note_id": _invoice,
    "payment_id": _payment,
    "payment_method_id": _payment_method,
}
