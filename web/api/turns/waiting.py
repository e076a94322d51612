"""What the turns of queued responses wait for."""

from collections.abc import Collection
from contextlib import suppress

from models.platform.errors import Unavailable
from models.serving.waiting_turns import WaitingTurn, read_waiting
from models.turns.responses import Response
from pipelines.chat.response_types import ResponseObject
from web.api.platform import Platform
from web.api.request import Request
from web.streams.waiting import waiting_object


def read_waiting_jobs(platform: Platform, job_ids: Collection[str]) -> dict[str, WaitingTurn]:
    """Return those of the jobs that are turns which wait, by id. Raises Unavailable."""
    state = platform.serving.state()
    with platform.database.connection() as connection:
        return read_waiting(connection, state, job_ids)


def with_waiting(request: Request, response: Response, body: ResponseObject) -> ResponseObject:
    """Add to a queued response what its turn waits for, unless it is about to begin or Postgres is down."""
    if response.status != "queued":
        return body
    turn = None
    with suppress(Unavailable):
        turn = read_waiting_jobs(request.platform, [response.job_id]).get(response.job_id)
    if turn is None or turn.begins_at_once:
        return body
    return {**body, "sangha": {**body.get("sangha", {}), "waiting": waiting_object(turn)}}
