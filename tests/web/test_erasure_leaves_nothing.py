"""Words of an erased account or member, of unstored turns and deleted objects are in no store of the installation."""

import json
import secrets
from dataclasses import replace
from pathlib import Path

import pytest

from bench.harness.waiting import wait_until
from models.accounts import account_data
from models.accounts.accounts import Role
from models.jobs.jobs import UNFINISHED
from models.journal import shards
from models.platform.errors import Unavailable
from models.platform.redis_client import connect
from tests.web.api_client import ApiUser, app_client
from tests.web.worker_process import run_worker

POOLS = ["inference", "memory", "recall", "tools", "billing", "reporting", "delivery", "maintenance"]


@pytest.fixture
def word():
    """A word that occurs nowhere else, and that has no other stem."""
    return "q" + "".join(secrets.choice("bcdfghjk") for _ in range(20)) + "q"


class Stores:
    """Everything that the installation stores."""

    def __init__(self, database, settings, folders):
        self.database = database
        self.clients = [connect(f"{settings.redis_address}{suffix}") for suffix in ("", "?db=9")]
        self.folders = folders

    def places_of(self, word):
        """Return where a word is, in lower or upper case."""
        return [*self._tables(word), *self._keys(word.encode()), *self._files(word.encode())]

    def _tables(self, word):
        with self.database.connection() as connection:
            names = connection.execute(
                "SELECT table_name AS name FROM information_schema.tables"
                " WHERE table_schema = 'public' AND table_type = 'BASE TABLE'"
            ).fetchall()
            for name in (row["name"] for row in names):
                if connection.execute(f'SELECT FROM "{name}" AS r WHERE r::text ILIKE %s', (f"%{word}%",)).rowcount:
                    yield f"table {name}"

    def _keys(self, word):
        for client in self.clients:
            for key in client.scan_iter():
                if word in (key + repr(read_key(client, key)).encode()).lower():
                    yield f"key {key.decode()}"

    def _files(self, word):
        for folder in self.folders:
            for path in folder.rglob("*"):
                if path.is_file() and word in path.read_bytes().lower():
                    yield f"file {path}"


def read_key(client, key):
    """Return the whole value of a key."""
    match client.type(key).decode():
        case "string":
            return client.get(key)
        case "hash":
            return client.hgetall(key)
        case "stream":
            return client.xrange(key)
        case "list":
            return client.lrange(key, 0, -1)
        case "set":
            return client.smembers(key)
        case "zset":
            return client.zrange(key, 0, -1)
        case other:
            return other


def delete_left_jobs(database):
    """Delete unfinished jobs; returns False after a conflict with the deletion of an account."""
    query = "DELETE FROM jobs WHERE id IN (SELECT id FROM jobs WHERE state = ANY(%s) FOR UPDATE SKIP LOCKED)"
    try:
        with database.transaction() as connection:
            connection.execute(query, (list(UNFINISHED),))
    except Unavailable:
        return False
    return True


@pytest.fixture(scope="module")
def worker_folder(settings, database, valkey, tmp_path_factory):
    """The folder of a worker of all pools, without the work that earlier tests have left in the queues."""
    folder = tmp_path_factory.mktemp("worker")
    wait_until(lambda: delete_left_jobs(database))
    with connect(valkey.url) as client:
        if queues := list(client.scan_iter("sangha:queue:*")):
            client.delete(*queues)
    with run_worker(settings, POOLS, folder):
        yield folder


@pytest.fixture
def stores(database, settings, worker_folder):
    """All stores of the installation."""
    return Stores(database, settings, [settings.home / "objects", settings.home / "mailbox", Path(worker_folder)])


def wait_for_jobs(user):
    """Wait until no job of the account is due or runs."""
    due = [state for state in UNFINISHED if state != "scheduled"]

    def all_ended():
        with user.database.connection() as connection:
            return not connection.execute(
                "SELECT FROM jobs WHERE account_id = %s AND state = ANY(%s)", (user.caller.account_id, due)
            ).rowcount

    wait_until(all_ended, timeout=60)


def ok(answer):
    assert answer.status_code < 300, answer.text
    return answer.json()


def rows_of(database, user):
    """Return the tables with rows of the user or of their account."""
    owned = {"account_id": user.caller.account_id, "user_id": user.caller.user_id}
    with database.connection() as connection:
        columns = connection.execute(
            "SELECT table_name, column_name FROM information_schema.columns JOIN information_schema.tables"
            " USING (table_schema, table_name) WHERE table_schema = 'public' AND table_type = 'BASE TABLE'"
            " AND column_name = ANY(%s)",
            (list(owned),),
        ).fetchall()
        return {
            row["table_name"]
            for row in columns
            if connection.execute(
                f"SELECT FROM {row['table_name']} WHERE {row['column_name']} = %s", (owned[row["column_name"]],)
            ).rowcount
        }


def fill_account(user, word, mailbox):
    """Store a word in everything that takes a text."""
    ok(user.request("PATCH", "/v1/account", json={"name": f"The {word}"}))
    fill_user(user, word, mailbox)
    ok(user.request("POST", "/v1/account/invitations", json={"email": f"{word}@example.com", "role": "member"}))
    ok(user.request("POST", "/v1/account/export"))
    wait_for_jobs(user)


def fill_user(user, word, mailbox):
    """Store a word in everything that takes a text from a member without a role of admins."""
    key = {"idempotency-key": f"key of {word}".replace(" ", "-")}
    text = f"I keep my {word} in the shed"
    ok(user.request("PATCH", "/v1/me", json={"name": f"Miss {word}"}))
    ok(user.request("POST", "/v1/api_keys", json={"name": word, "scopes": ["read"]}, headers=key))
    ok(user.request("POST", "/auth/email/resend"))
    wait_until(lambda: [*mailbox.rglob("*.eml")], timeout=60)
    with user.database.connection() as connection:
        connection.execute("UPDATE users SET email_verified_at = now() WHERE id = %s", (user.caller.user_id,))
    items = [{"type": "message", "role": "user", "content": text}]
    conversation = ok(user.request("POST", "/v1/conversations", json={"items": items, "metadata": {"a": word}}))
    turn = {"input": text, "instructions": f"Think of {word}."}
    ok(user.request("POST", "/v1/responses", json={**turn, "conversation": conversation["id"]}))
    ok(user.request("POST", "/v1/responses", json={**turn, "store": False}))
    ok(
        user.request(
            "POST", "/v1/chat/completions", json={"model": "default", "messages": [{"role": "user", "content": text}]}
        )
    )
    ok(user.request("POST", "/v1/embeddings", json={"model": "default", "input": text}))
    ok(
        user.request(
            "POST", "/v1/memories", json={"text": text, "metadata": {"a": word}}, headers={"idempotency-key": "b"}
        )
    )
    ok(user.request("POST", "/v1/memories/search", json={"query": text}))
    ok(user.request("POST", "/v1/memories/import", content=json.dumps({"text": text}) + "\n{}\n"))
    ok(user.request("POST", "/v1/meditations"))
    fill_space(user, word, text)
    trigger, work = {"type": "interval", "seconds": 86_400}, {"kind": "turn", "request": {"input": text}}
    ok(user.request("POST", "/v1/schedules", json={"name": word, "trigger": trigger, "work": work}))
    wait_for_jobs(user)


def fill_space(user, word, text):
    """Store a word as the name of an end user."""
    in_space = {"space": word}
    ok(user.request("POST", "/v1/responses", json={"input": text, "user": word}))
    ok(user.request("POST", "/v1/memories", json={"text": text, **in_space}))
    ok(user.request("POST", "/v1/memories/search", json={"query": text, **in_space}))
    ok(user.request("POST", "/v1/meditations", params=in_space))
    trigger = {"type": "interval", "seconds": 86_400}
    for work in ({"kind": "meditation", **in_space}, {"kind": "turn", "request": {"input": text, "memory": in_space}}):
        ok(user.request("POST", "/v1/schedules", json={"name": word, "trigger": trigger, "work": work}))


def erase(user):
    """Erase the user with their account, and wait for the end of the erasure."""
    with user.database.connection() as connection:
        email = account_data.email_of(connection, user.caller.user_id)
    job_id = ok(user.request("DELETE", "/v1/me", params={"confirm": email}))["job_id"]
    with user.database.connection() as connection:
        connection.execute("UPDATE jobs SET state = 'queued', run_at = now() WHERE id = %s", (job_id,))
    platform = user.client.app.state.platform

    def has_ended():
        platform.queue.nudge()  # the sweeper promotes a released job
        with user.database.connection() as connection:
            connection.execute("UPDATE jobs SET state = 'queued' WHERE id = %s AND state = 'scheduled'", (job_id,))
            row = connection.execute("SELECT state, error FROM jobs WHERE id = %s", (job_id,)).fetchone()
            assert row["state"] not in ("failed", "dead"), row
            return row["state"] == "completed"

    wait_until(has_ended, timeout=60)


def join(user, account_id):
    """Make the user a member of an account, with a token for it."""
    with user.database.connection() as connection:
        connection.execute(
            "INSERT INTO memberships (account_id, user_id, role) VALUES (%s, %s, 'member')",
            (account_id, user.caller.user_id),
        )
    user.caller = replace(user.caller, account_id=account_id, role=Role.MEMBER)
    user.token = user.client.app.state.platform.tokens.issue(user.caller)


def test_the_words_of_an_erased_account_are_in_no_store(settings, database, stores, word):
    with app_client(settings) as client:
        user = ApiUser(client, database)
        with database.connection() as connection:
            connection.execute(
                "UPDATE users SET email = %s WHERE id = %s", (f"me-{word}@example.com", user.caller.user_id)
            )
        fill_account(user, word, settings.home / "mailbox")
        kept_in = set(stores.places_of(word))
        assert {
            "table memories",
            "table memory_spaces",
            "table responses",
            "table job_events",
            "table schedules",
        } <= kept_in
        assert {place.split()[0] for place in kept_in} == {"table", "key", "file"}

        erase(user)

        shards.trim(stores.clients[0], kept=0)  # as the scheduler does two minutes later
        assert stores.places_of(word) == []
        assert rows_of(database, user) <= {"accounts", "usage_records", "quota_usage", "error_counts", "memory_counts"}


def test_the_words_of_an_erased_member_are_in_no_store_and_those_of_others_remain(settings, database, stores, word):
    # Given an account that exported the texts of an owner and of a member
    with app_client(settings) as client:
        owner, member = ApiUser(client, database), ApiUser(client, database)
        join(member, owner.caller.account_id)
        kept = f"{word[::-1]}z"
        for user, text in ((owner, kept), (member, word)):
            fill_user(user, text, settings.home / "mailbox")
        ok(owner.request("POST", "/v1/account/export"))
        wait_for_jobs(owner)
        assert {"table memories", "table memory_spaces", "table responses"} <= set(stores.places_of(word))

        # When the member is erased
        erase(member)

        # Then the member's words are gone, and the owner's remain
        shards.trim(stores.clients[0], kept=0)
        assert stores.places_of(word) == []
        assert {"table memories", "table responses", "table schedules"} <= set(stores.places_of(kept))
        owner.delete_account()


def test_the_words_of_unstored_and_deleted_objects_are_in_no_store(settings, database, stores, word):
    # Given turns that are not stored, results that were delivered, and objects that are deleted
    text = f"I keep my {word} in the shed"
    with app_client(settings) as client:
        user = ApiUser(client, database)
        key, memory = {"idempotency-key": "a"}, {"text": text, "metadata": {"a": word}}
        items = [{"type": "message", "role": "user", "content": text}]
        ok(user.request("POST", "/v1/responses", json={"input": text, "instructions": text, "store": False}))
        ok(user.request("POST", "/v1/responses/input_tokens", json={"input": text}))
        ok(user.request("POST", "/v1/embeddings", json={"model": "default", "input": text}))
        conversation = ok(user.request("POST", "/v1/conversations", json={"items": items, "metadata": {"a": word}}))
        items_path = f"/v1/conversations/{conversation['id']}/items"
        added = ok(user.request("POST", items_path, json={"items": items}, headers={"idempotency-key": "b"}))
        again = ok(user.request("POST", items_path, json={"items": items}, headers={"idempotency-key": "b"}))
        assert added == again
        in_conversation = {"input": text, "conversation": conversation["id"]}
        responses = [
            ok(user.request("POST", "/v1/responses", json=body)) for body in ({"input": text}, in_conversation)
        ]
        memories = ok(user.request("POST", "/v1/memories", json=memory, headers=key))["data"]
        ok(user.request("PATCH", f"/v1/memories/{memories[0]['id']}", json={"text": f"{text}!"}))
        ok(user.request("POST", "/v1/memories/search", json={"query": text}))
        wait_for_jobs(user)
        assert stores.places_of(word) != []

        # When they are deleted
        for response in responses:
            ok(user.request("DELETE", f"/v1/responses/{response['id']}"))
        ok(user.request("DELETE", f"/v1/conversations/{conversation['id']}"))
        ok(user.request("DELETE", f"/v1/memories/{memories[0]['id']}"))
        ok(user.request("DELETE", "/v1/memories", params={"all": "true"}))
        wait_for_jobs(user)

        # Then their words are gone, and do not come back by the key of the request
        shards.trim(stores.clients[0], kept=0)
        assert stores.places_of(word) == []
        repeated = user.request("POST", "/v1/memories", json=memory, headers=key)
        assert (repeated.status_code, repeated.json()["data"]) == (201, [])
        repeated = user.request("POST", items_path, json={"items": items}, headers={"idempotency-key": "b"})
        assert repeated.status_code == 404
        assert stores.places_of(word) == []
        user.delete_account()
