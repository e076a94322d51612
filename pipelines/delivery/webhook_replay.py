"""The job `webhook.replay`: deliver events to an endpoint again, a page at a time.

Without `since` it continues the deliveries that were held while the endpoint was disabled. A crash repeats at most a
page. While the endpoint has many pending deliveries the job waits, so that a month of events does not fill the queue.
"""

from datetime import datetime
from typing import Any

from models.delivery import deliveries, endpoints, events
from models.jobs.attempt_context import Attempt, plain_ending
from models.jobs.attempts import Ending
from models.platform.database import Connection
from models.platform.errors import Released
from pipelines.time_slice import TimeSlice

KIND = "webhook.replay"

#: Events of a page, and deliveries of an endpoint that may be pending before the next page.
PAGE, MAX_PENDING = 200, 1000

#: Seconds after which it looks again whether deliveries have ended.
PAUSE = 5.0


def run(attempt: Attempt) -> Ending:
    """Deliver events again, until there is none left or the endpoint is disabled. Raises Released."""
    progress = attempt.job.progress or {}
    after, done = (progress.get("resume") or {}).get("after"), int(progress.get("done") or 0)
    time_slice = TimeSlice(attempt)
    while True:
        time_slice.check()
        _wait_for_pending(attempt)
        with attempt.database.transaction() as connection:
            after, count = _replay_page(connection, attempt.job.arguments, after)
        done += count
        if after is None:
            return plain_ending(attempt, "completed", result={"replayed": done})
        attempt.report_progress(done, note="events replayed", resume={"after": after})


def _wait_for_pending(attempt: Attempt) -> None:
    arguments = attempt.job.arguments
    with attempt.database.connection() as connection:
        pending = deliveries.count_pending(connection, arguments["endpoint_id"], arguments["account_id"], MAX_PENDING)
    if pending >= MAX_PENDING:
        raise Released("The endpoint has many pending deliveries.", delay=PAUSE)


def _replay_page(connection: Connection, arguments: dict[str, Any], after: str | None) -> tuple[str | None, int]:
    """Start the deliveries of a page. Returns its last event, or None if it is the last page, and their number."""
    endpoint_id, account_id = arguments["endpoint_id"], arguments["account_id"]
    endpoint = endpoints.read(connection, endpoint_id, account_id)
    if endpoint is None or not endpoint.enabled:
        return None, 0
    if arguments.get("since") is None:
        count = deliveries.resume(connection, endpoint_id, account_id, PAGE)
        return ("held" if count == PAGE else None), count
    page = events.page(
        connection,
        account_id,
        after=after,
        limit=PAGE,
        oldest_first=True,
        patterns=endpoint.event_types,
        since=datetime.fromisoformat(arguments["since"]),
    )
    ids = [event.id for event in page]
    undelivered_only = bool(arguments.get("undelivered_only"))
    count = deliveries.replay(connection, endpoint_id, account_id, ids, undelivered_only=undelivered_only)
    return (ids[-1] if len(ids) == PAGE else None), count
