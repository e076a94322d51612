"""The memories of the people whom an application serves."""

import pytest

from bench.harness.waiting import wait_until

STATEMENT, QUESTION = "I am allergic to {}, by the way.", "Which food am I allergic to?"

#: A statement of each person.
FOODS = {"alice": "peanuts", "bob": "celery"}

MAKE_DUE = """
UPDATE jobs SET state = 'queued', run_at = now()
WHERE account_id = %s AND kind = 'memory.remember' AND state = 'scheduled'
"""

UNREMEMBERED = "SELECT count(*) AS count FROM responses WHERE account_id = %s AND unremembered"

BOTH_WAYS = pytest.mark.parametrize(("person", "other"), [("alice", "bob"), ("bob", "alice")])


def ok(answer):
    assert answer.status_code < 300, answer.text
    return answer.json()


def texts(app, name, **query):
    """List the texts of an end user's memories."""
    return [
        memory["text"] for memory in ok(app.request("GET", "/v1/memories", params={"space": name, **query}))["data"]
    ]


def write(app, name, text, **fields):
    (memory,) = ok(app.request("POST", "/v1/memories", json={"space": name, "text": text, **fields}))["data"]
    return memory


def remember_now(app):
    """Run the jobs that remember turns, which a scheduler would start later. Returns whether any turn is left."""
    with app.database.connection() as connection:
        connection.execute(MAKE_DUE, (app.caller.account_id,))
        left = connection.execute(UNREMEMBERED, (app.caller.account_id,)).fetchone()["count"]
    app.client.app.state.platform.queue.nudge(app.caller.account_id)
    return bool(left)


def wait_until_remembered(app):
    wait_until(lambda: not remember_now(app))


def by_response(app, text, **body):
    return ok(app.request("POST", "/v1/responses", json={"input": text, **body}))["id"]
