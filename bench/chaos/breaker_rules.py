"""Rules about the endpoint's circuit breaker: it opens after a bounded number of failures, and closes after the fault.

The bound is the breaker's own, and the requests that were under way when it opened. Probes are not counted as
failures of a closed breaker, so those that its shortest pause allows are added.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from random import Random

from bench.chaos.endpoint_faults import NAME as ENDPOINT_FAULT
from bench.chaos.fault import InjectedFault, names_in
from bench.chaos.fleet import sign_up
from bench.chaos.processes import UPSTREAM
from bench.chaos.retrying_client import Deadline, HttpRequest, RetryingClient
from bench.chaos.spilling import NAME, SLOTS
from bench.chaos.transcripts import ClientTranscript
from bench.chaos.violations import Violation
from bench.harness.client import Address
from bench.harness.endpoint.book import BookedRequest
from bench.harness.stack import WITHOUT_MEMORY
from bench.harness.waiting import wait_until
from models.platform.database import Database, fetch_one
from models.platform.ids import new_id
from models.platform.settings import Settings
from models.serving.breakers import FIRST_COOLDOWN, MOST_FAILURES

#: The faults of a request after which it has failed. 429 and a late answer are no failures.
FAILING = frozenset({"status", "hang", "drop", "garbage"})

#: Requests that a closed breaker lets through before any fault opens it, and those under way by then.
MOST_BEFORE_OPEN = MOST_FAILURES + SLOTS

#: Faults of others that may lose what was counted, or delay it.
EXCUSING = frozenset({"postgres", UPSTREAM, "worker-postgres"})

#: Turns that are sent at once so that some have to spill, and the seconds until the breaker is closed.
TURNS, PATIENCE = 24, 90.0

STATE = "SELECT breaker_state FROM circuit_breakers WHERE upstream = %(upstream)s"


def check_openings(
    book: Sequence[BookedRequest], injected: Sequence[InjectedFault], offset: float
) -> Iterator[Violation]:
    """Check that each fault of the endpoint met a bounded number of requests.

    offset  seconds to add to the faults' times
    """
    for fault in injected:
        if fault.name != ENDPOINT_FAULT or _is_excused(fault, injected):
            continue
        began, ended = fault.struck_at + offset, fault.healed_at + offset
        failed = [each for each in book if began <= each.at <= ended and each.fault in FAILING and each.status != 429]
        most = MOST_BEFORE_OPEN + int((ended - began) / FIRST_COOLDOWN) + 1
        if len(failed) > most:
            yield Violation("breaker", fault.target, f"{len(failed)} requests failed before it opened; at most {most}")


def _is_excused(fault: InjectedFault, injected: Sequence[InjectedFault]) -> bool:
    """Return whether another fault at the same time keeps workers from counting failures."""
    return any(
        other is not fault and other.struck_at < fault.healed_at and other.healed_at > fault.struck_at
        and EXCUSING & set(names_in(other.target))
        for other in injected
    )  # fmt: skip


def check_closed(addresses: Sequence[Address], settings: Settings) -> Iterator[Violation]:
    """Check that the breaker of an endpoint that works closes again, as soon as turns have to spill."""
    account, key = sign_up(addresses, new_id("breaker"))
    client = RetryingClient(addresses, key, Random(account), Deadline())
    with closing(Database(settings.postgres_dsn, size=1, name="checker")) as database:
        deadline = time.monotonic() + PATIENCE
        while _state(database) != "closed" and time.monotonic() < deadline:
            _send_turns(client, account)
            with suppress(TimeoutError):
                wait_until(lambda: _state(database) == "closed", FIRST_COOLDOWN, what="the breaker")
        if (state := _state(database)) != "closed":
            yield Violation("breaker", NAME, f"it is {state}, {PATIENCE:g} s after the last fault, and turns wait")


def _send_turns(client: RetryingClient, account: str) -> None:
    body = {"input": "Say all.", "background": True, **WITHOUT_MEMORY}
    transcript = ClientTranscript("turn", "breaker", account, "", body, 0.0)
    for _ in range(TURNS):
        client.send(transcript, HttpRequest("POST", "/v1/responses", body))


def _state(database: Database) -> str:
    with database.connection() as connection:
        row = fetch_one(connection, STATE, {"upstream": NAME})
    return str(row["breaker_state"]) if row else "closed"
