"""Keep turns in the operator's network that may not leave it.

A turn is `local` if its request, its agent, its API key, its account, or a turn above it says so. What is known at
enqueue is in the job's argument `residency`. The account counts as it is now, wherever a turn would leave: in the
UPDATE that moves it (`models.serving.moves`), and again before an endpoint gets its prompt.
"""

from collections.abc import Mapping, Sequence

from models.accounts import audit
from models.accounts.accounts import Caller
from models.accounts.audit import RequestOrigin
from models.accounts.residency import Residency, read_residency, set_residency, strictest
from models.jobs.catalogue import CATALOGUE
from models.jobs.jobs import Job, NewJob
from models.platform.database import Connection, Database
from models.platform.errors import Moved, NotAllowed, PermanentFailure
from models.platform.settings import Settings
from models.serving import moves
from models.serving.queues import endpoint_of, endpoint_queue
from pipelines.inference.registry import is_local
from pipelines.routing.returned_turns import home_of, returned

#: The argument of a job that says that it may not leave.
ARGUMENT = "residency"

MESSAGE = "This turn may not leave the installation, and its model is served by another host."


def check_model(residency: Residency | None, *, is_local_model: bool) -> None:
    """Raise NotAllowed for a request that may not leave, and whose model only another host serves."""
    if not is_local_model and residency == "local":
        raise NotAllowed(MESSAGE, param="model", code="residency")


def check_new_job(settings: Settings, caller: Caller, job: NewJob) -> None:
    """Raise NotAllowed for a turn to insert that may not leave, and whose model only another host serves."""
    allowed = strictest(job.arguments.get(ARGUMENT), caller.residency or settings.residency)
    queue = job.queue or CATALOGUE[job.kind].queue
    check_model(allowed, is_local_model=not leaves_network(settings, queue))


def argument(*residencies: str | None) -> Mapping[str, str]:
    """Return the job argument for a turn, of which some say whether it may leave."""
    return {ARGUMENT: "local"} if strictest(*residencies) == "local" else {}


def leaves_network(settings: Settings, queue: str) -> bool:
    """Return whether what answers the turns of a queue is outside of the operator's network."""
    if (name := endpoint_of(queue)) is None:
        return not is_local(settings)
    upstream = next((each for each in settings.upstreams if each.name == name), None)
    return upstream is None or not upstream.is_local


def check_dispatch(settings: Settings, connection: Connection, job: Job, *, agent: Residency | None = None) -> None:
    """Check that the engine that runs a job may have its prompt, as the account says now. Free for a local engine.

    agent  what the agent says that answers now: it may have taken over the turn

    Raises Moved for a turn that goes home, and PermanentFailure for one that has no home.
    """
    if not leaves_network(settings, job.queue):
        return
    stays = job.arguments.get(ARGUMENT) == "local" or agent == "local"
    account = read_residency(connection, job.account_id) or settings.residency
    if stays or account == "local":
        raise refused(job, stays=stays)


def refused(job: Job, *, stays: bool) -> Moved | PermanentFailure:
    """Return how a job goes on that may not be sent to its endpoint.

    stays  nothing that may change later says so: it never leaves again
    """
    if home_of(job):
        return returned(job, "residency", "its residency is local", stays=stays)
    return PermanentFailure(MESSAGE, code="residency")


def change_account(
    settings: Settings, database: Database, caller: Caller, residency: Residency | None, origin: RequestOrigin
) -> frozenset[str]:
    """Change the residency of the caller's account, and bring its waiting turns home if it is local now.

    Returns the lanes in which the relay should publish. A turn that is being moved at the same time is found by the
    check before its prompt is sent.
    """
    lanes: frozenset[str] = frozenset()
    with database.transaction() as connection:
        before = read_residency(connection, caller.account_id)
        set_residency(connection, caller.account_id, residency)
        details = {"residency": residency, "was": before}
        audit.record(
            connection, "account.residency_changed", origin, account_id=caller.account_id, user_id=caller.user_id,
            target=caller.account_id, details=details | ({"by_key": caller.key_id} if caller.key_id else {}),
        )  # fmt: skip
        for name in outside(settings) if (residency or settings.residency) == "local" else ():
            lanes |= moves.return_home(connection, name, "residency", account_id=caller.account_id).lanes
    return lanes


def outside(settings: Settings) -> Sequence[str]:
    """Return the endpoints that are not in the operator's network."""
    return [each.name for each in settings.upstreams if leaves_network(settings, endpoint_queue(each.name))]
