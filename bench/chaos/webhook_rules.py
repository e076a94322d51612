"""Rules about webhooks: each event is accepted by its receiver, and each background response has one event."""

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from bench.chaos.violations import Violation
from bench.harness.webhook_receiver import Received, WebhookReceiver
from models.platform.database import Connection, Database, fetch_all

#: One of so many events is refused when it arrives first, so that it is tried again.
REFUSED = 8

#: Seconds that refused events have to arrive again, after all else has ended.
RETRY_SECONDS = 30.0

# Events of which there is a delivery, and so an endpoint.
EVENTS = """
SELECT account_events.id, account_events.event_type, account_events.data ->> 'id' AS data_id, delivery_state, tries
FROM account_events JOIN webhook_deliveries ON webhook_deliveries.event_id = account_events.id
WHERE account_events.account_id = ANY(%(accounts)s) AND tested_id IS NULL
"""

# Events that no endpoint gets, although one of the account asks for all types. A transaction may be older than an
# endpoint that was created shortly before its event.
UNDELIVERED = """
SELECT account_events.id, account_events.event_type, account_events.data ->> 'id' AS data_id
FROM account_events JOIN webhook_endpoints ON webhook_endpoints.account_id = account_events.account_id
WHERE account_events.account_id = ANY(%(accounts)s) AND tested_id IS NULL AND '*' = ANY(event_types)
  AND account_events.created_at > webhook_endpoints.created_at + make_interval(secs => %(oldest_transaction)s)
  AND NOT EXISTS (
      SELECT FROM webhook_deliveries
      WHERE webhook_deliveries.event_id = account_events.id AND webhook_deliveries.endpoint_id = webhook_endpoints.id)
"""

#: Seconds that a transaction lasts at most.
OLDEST_TRANSACTION = 30

# Background responses that have ended, of which there is no event, several, or one of another kind.
RESPONSES = """
SELECT responses.id, jobs.state, count(account_events.id)::int AS count, min(account_events.event_type) AS type
FROM responses JOIN all_jobs AS jobs ON jobs.id = responses.job_id
JOIN webhook_endpoints ON webhook_endpoints.account_id = responses.account_id
LEFT JOIN account_events ON account_events.account_id = responses.account_id
    AND account_events.data ->> 'id' = responses.id AND account_events.event_type LIKE 'response.%%'
WHERE responses.account_id = ANY(%(accounts)s) AND (responses.request ->> 'background')::boolean
  AND jobs.parent_id IS NULL AND jobs.finished_at IS NOT NULL AND responses.created_at > webhook_endpoints.created_at
GROUP BY responses.id, jobs.state
HAVING count(account_events.id) <> 1
    OR jobs.state = 'cancelled' AND min(account_events.event_type) <> 'response.cancelled'
    OR jobs.state = 'completed' AND min(account_events.event_type) NOT IN ('response.completed', 'response.incomplete')
"""


def answer(path: str, number: int, event_id: str) -> int:
    """Return the status with which a receiver answers the arrival of an event, by how often it has arrived."""
    return 500 if number == 1 and int(event_id[-4:], 16) % REFUSED == 0 else 204


def check(database: Database, receiver: WebhookReceiver, *, lost_commits: bool = False) -> Iterator[Violation]:
    """Check what a receiver has accepted, once nothing else is under way.

    lost_commits  a failover has lost commits: an event that arrived may have been recorded again
    """
    accounts = list(receiver.secrets)
    _wait_for_retries(database, receiver, accounts)
    received = [each for account in accounts for each in receiver.received(account)]
    yield from _check_signatures(received)
    if not lost_commits:
        yield from _check_ids(received)
    accepted = {each.event_id for each in received if each.accepted}
    with database.connection() as connection:
        for row in _missing(connection, accounts, accepted):
            detail = f"{row['event_type']} about {row['data_id']} was not accepted: {row['delivery_state']}"
            yield Violation("webhook lost", row["id"], f"{detail}, {row['tries']} tries")
        for row in fetch_all(connection, UNDELIVERED, {"accounts": accounts, "oldest_transaction": OLDEST_TRANSACTION}):
            yield Violation("webhook event", row["id"], f"{row['event_type']} about {row['data_id']} has no delivery")
        for row in fetch_all(connection, RESPONSES, {"accounts": accounts}):
            yield Violation("webhook event", row["id"], f"{row['state']}: {row['count']} events, of {row['type']}")


def _wait_for_retries(database: Database, receiver: WebhookReceiver, accounts: Sequence[str]) -> None:
    deadline = time.monotonic() + RETRY_SECONDS
    while time.monotonic() < deadline:
        accepted = {each.event_id for account in accounts for each in receiver.received(account) if each.accepted}
        with database.connection() as connection:
            if not _missing(connection, accounts, accepted):
                return
        time.sleep(0.5)


def _missing(connection: Connection, accounts: Sequence[str], accepted: set[str]) -> Sequence[Mapping[str, str]]:
    return [row for row in fetch_all(connection, EVENTS, {"accounts": accounts}) if row["id"] not in accepted]


def _check_signatures(received: Sequence[Received]) -> Iterator[Violation]:
    for each in received:
        if not each.valid:
            yield Violation("webhook signature", each.event_id, f"{each}")


def _check_ids(received: Sequence[Received]) -> Iterator[Violation]:
    """Check that all arrivals of one event have one id."""
    ids = defaultdict(set)
    for each in received:
        if each.type.startswith("response."):
            ids[each.data_id].add(each.event_id)
    for subject, several in ids.items():
        if len(several) > 1:
            yield Violation("webhook id", subject, f"arrived with the ids {sorted(several)}")
