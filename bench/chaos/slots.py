"""Whether every slot of the engines is free: as many turns as there are slots, asked for at once, must run at once."""

import time
from collections.abc import Iterator, Mapping, Sequence
from random import Random

from bench.chaos.door import Doors, Patience
from bench.chaos.fleet import sign_up
from bench.chaos.transcripts import Transcript
from bench.chaos.violations import Violation
from bench.client import Address
from bench.stack import FORGETFUL
from models.platform.database import Database, fetch_one
from models.platform.ids import new_id
from models.platform.settings import Settings

#: Seconds between two looks, and how often turns are sent before a slot counts as lost: the machine may be busy.
PAUSE, ROUNDS = 0.02, 3

#: Seconds that the turns of one round may take.
PATIENCE = 60.0

SLOTS = """
SELECT coalesce(sum(threads), 0)::int AS slots FROM workers WHERE pid = ANY(%(pids)s) AND 'inference' = ANY(queues)
"""

MOVING = """
SELECT count(*) FILTER (WHERE state = 'running') AS running, count(*) AS unfinished FROM jobs
WHERE account_id = %(account_id)s AND kind = 'turn.run' AND state IN ('queued', 'running', 'waiting')
"""


def lost(pids: Mapping[str, int], addresses: Sequence[Address], settings: Settings) -> Iterator[Violation]:
    """The slots that nobody gets any more. For a platform that is calm, with an account of its own."""
    database = Database(settings.postgres_dsn, size=1, name="checker")
    try:
        with database.connection() as connection:
            row = fetch_one(connection, SLOTS, {"pids": list(pids.values())})
        slots = row["slots"] if row else 0
        account, token = sign_up(addresses, new_id("slots"))
        doors = Doors(addresses, token, Random(account), Patience())
        peaks = []
        for _ in range(ROUNDS):
            peaks.append(_peak(database, doors, account, slots))
            if peaks[-1] >= slots:
                return
        yield Violation("leak", "slots", f"of {slots} turns at once, {peaks} ran at once")
    finally:
        database.close()


def _peak(database: Database, doors: Doors, account: str, turns: int) -> int:
    """How many of so many turns ran at the same time."""
    unheard = Transcript("turn", "slots", account, "", {"input": "Say all.", "background": True, **FORGETFUL}, 0.0)
    for _ in range(turns):
        doors.patiently(unheard, "POST", "/v1/responses", unheard.asked)
    peak, deadline = 0, time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        with database.connection() as connection:
            row = fetch_one(connection, MOVING, {"account_id": account})
        if row is None or not row["unfinished"]:
            break
        peak = max(peak, row["running"])
        time.sleep(PAUSE)
    return peak
