"""Handle clients of turns that disconnect: abandoned turns are cancelled, and retries learn of the disconnect.

A turn is abandoned if its client disconnects and nobody can read its answer later: it is not stored, has no
conversation and no Idempotency-Key. It continues for a few seconds, in which a retry may join it.
"""

import logging
from collections.abc import Callable, Sequence
from functools import partial

from models.platform.errors import Unavailable
from models.turns import abandoned_turns
from models.turns.responses import Response
from pipelines.chat.new_turn import NewTurn
from web.api.job_results import cancel_job
from web.api.request import Request
from web.api.turns.retries import is_unreadable, store_state
from web.http.disconnects import DisconnectPolicy, OnDisconnect
from web.http.threads import run_in_thread

log = logging.getLogger(__name__)


def cancelled_after_disconnect(request: Request, policy: DisconnectPolicy, turn: NewTurn) -> bool:
    """Return whether a turn is cancelled, at once or after the grace, when its client disconnects."""
    return policy == "cancel" or (policy == "default" and request.retriable is not None and is_unreadable(turn))


def disconnect_action(
    request: Request, policy: DisconnectPolicy, job_ids: Sequence[str], seed: str | None, *, unreadable: bool
) -> OnDisconnect | None:
    """Return the function to call when the client of turns disconnects; None if there is nothing to do.

    seed        of the ids of the turns; None if the request has an Idempotency-Key
    unreadable  whether nobody can read the turns later
    """
    if policy == "cancel":
        return partial(run_in_thread, partial(_cancel, request, job_ids))
    if seed is None:
        return None
    if unreadable and policy == "default":
        return partial(_unless_closing, request, partial(_abandon, request, job_ids, seed))
    return partial(_unless_closing, request, partial(store_state, request, seed, "disconnected"))


def keep_turn(request: Request, response: Response) -> OnDisconnect | None:
    """Keep a response from being cancelled, because a client reads it. Returns the function for its disconnect."""
    if response.ended or response.expires_at is None:
        return None
    with request.platform.database.connection() as connection:
        kept = abandoned_turns.keep(connection, [response.job_id], response.account_id)
    return partial(_unless_closing, request, partial(_abandon, request, [response.job_id], None)) if kept else None


async def _unless_closing(request: Request, action: Callable[[], None]) -> None:
    if not request.platform.streams.closing:  # the clients of a process that shuts down have not disconnected
        await run_in_thread(action)


def _abandon(request: Request, job_ids: Sequence[str], seed: str | None) -> None:
    try:
        with request.platform.database.connection() as connection:
            abandoned_turns.abandon(connection, job_ids, request.caller.account_id)
    except Unavailable as error:
        log.warning("Request %s: cannot abandon its turns, which continue: %s", request.request_id, error)
        return
    store_state(request, seed, "disconnected")


def _cancel(request: Request, job_ids: Sequence[str]) -> None:
    for job_id in job_ids:
        cancel_job(request, job_id)
