"""Check that every slot of the engines is usable: as many concurrent turns as there are slots must run at once."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from random import Random

from bench.chaos.fleet import sign_up
from bench.chaos.retrying_client import Deadline, HttpRequest, RetryingClient
from bench.chaos.transcripts import ClientTranscript
from bench.chaos.violations import Violation
from bench.harness.client import Address
from bench.harness.stack import WITHOUT_MEMORY
from models.platform.database import Database, fetch_one
from models.platform.ids import new_id
from models.platform.settings import Settings

#: Seconds between two counts, and rounds of turns before a slot counts as lost, since the machine may be busy.
INTERVAL, ROUNDS = 0.02, 3

#: Seconds that the turns of one round may take.
PATIENCE = 60.0

SLOTS = """
SELECT coalesce(sum((queue_threads ->> 'inference')::int), 0)::int AS slots FROM workers WHERE pid = ANY(%(pids)s)
"""

UNFINISHED = """
SELECT count(*) FILTER (WHERE state = 'running') AS running, count(*) AS unfinished FROM jobs
WHERE account_id = %(account_id)s AND kind = 'turn.run' AND state IN ('scheduled', 'queued', 'running', 'waiting')
"""


def check_slots(pids: Mapping[str, int], addresses: Sequence[Address], settings: Settings) -> Iterator[Violation]:
    """Check the slots of an idle platform, with an account of its own."""
    with closing(Database(settings.postgres_dsn, size=1, name="checker")) as database:
        with database.connection() as connection:
            row = fetch_one(connection, SLOTS, {"pids": list(pids.values())})
        slots = row["slots"] if row else 0
        account, key = sign_up(addresses, new_id("slots"))
        client = RetryingClient(addresses, key, Random(account), Deadline())
        peaks = []
        for _ in range(ROUNDS):
            peaks.append(_peak(database, client, account, slots))
            if peaks[-1] >= slots:
                return
        yield Violation("leak", "slots", f"of {slots} turns at once, {peaks} ran at once")


def _peak(database: Database, client: RetryingClient, account: str, turns: int) -> int:
    """Create turns, and count how many of them run at the same time."""
    body = {"input": "Say all.", "background": True, "residency": "local", **WITHOUT_MEMORY}
    transcript = ClientTranscript("turn", "slots", account, "", body, 0.0)
    for _ in range(turns):
        client.send(transcript, HttpRequest("POST", "/v1/responses", body))
    peak, deadline = 0, time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        with database.connection() as connection:
            row = fetch_one(connection, UNFINISHED, {"account_id": account})
        if row is None or not row["unfinished"]:
            break
        peak = max(peak, row["running"])
        time.sleep(INTERVAL)
    return peak
