"""The results of one process's requests to endpoints, on their way to the circuit breakers that all processes share."""

import threading
from collections import Counter
from dataclasses import dataclass
from typing import Literal

from models.platform.database import Database
from models.serving import breakers
from models.serving.breakers import WINDOW, Breaker

RefusalReason = Literal["breaker_open", "endpoint_saturated"]


@dataclass(frozen=True, slots=True)
class Admission:
    """Whether a job may ask an endpoint now.

    is_probe     it probes the endpoint: report its result, or `withdraw` it
    reason       why it may not
    retry_after  seconds after which to ask again
    """

    is_allowed: bool
    is_probe: bool = False
    reason: RefusalReason = "breaker_open"
    retry_after: float = 0.0


#: Seconds between two tries of a job that waits for an operator, or for the probe of another one.
WAIT = 1.0


class EndpointResults:
    """Asks the breakers before each request, and reports the results. Thread-safe; its methods raise Unavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._successes = Counter[str]()  # by endpoint: those that the row does not count yet
        self._unsound: set[str] = set()  # endpoints whose rows count failures
        self._lock = threading.Lock()

    def admit(self, upstream: str, job_id: str) -> Admission:
        """Return whether a job may ask an endpoint; a due probe begins with it."""
        with self._database.connection() as connection:
            breaker = breakers.read(connection, upstream)
            self._note(breaker)
            if breaker.accepts:
                return Admission(True)
            if breakers.is_probe(breaker, job_id) or (
                breaker.wants_probe and breakers.begin_probe(connection, upstream, job_id)
            ):
                return Admission(True, is_probe=True)
        return _refusal(breaker)

    def succeeded(self, upstream: str, job_id: str, *, is_probe: bool = False) -> None:
        """Report an answer. Costs no statement while the breaker counts no failure."""
        with self._lock:
            sound = upstream not in self._unsound
            if sound and not is_probe:
                self._successes[upstream] = min(self._successes[upstream] + 1, WINDOW)
                return
        with self._database.connection() as connection:
            breakers.record_success(connection, upstream, job_id)

    def failed(self, upstream: str, job_id: str, kind: str, *, retry_after: float | None = None) -> Breaker:
        """Report a failure. Returns the breaker after it."""
        with self._lock:
            successes = self._successes[upstream]
        with self._database.connection() as connection:
            breaker = breakers.record_failure(
                connection, upstream, job_id, kind, successes=successes, retry_after=retry_after
            )
        self._note(breaker)
        return breaker

    def withdraw(self, upstream: str, job_id: str) -> None:
        """Give back the probe of a job that has not asked the endpoint, or was stopped before the answer's end."""
        with self._database.connection() as connection:
            breakers.end_probe(connection, upstream, job_id)

    def _note(self, breaker: Breaker) -> None:
        """Forget the successes from before a failure that the row counts: they are not its successors."""
        with self._lock:
            if breaker.is_sound:
                self._unsound.discard(breaker.upstream)
            else:
                self._unsound.add(breaker.upstream)
                self._successes[breaker.upstream] = 0


def _refusal(breaker: Breaker) -> Admission:
    if breaker.state == "closed" or (breaker.saturated_for and breaker.forced_state is None):
        return Admission(False, reason="endpoint_saturated", retry_after=breaker.saturated_for)
    wait = breaker.probe_in if breaker.state == "open" and breaker.forced_state is None else 0
    return Admission(False, reason="breaker_open", retry_after=max(wait, WAIT))
