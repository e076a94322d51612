"""Move a turn that an endpoint's worker has claimed back to the queue that it came from."""

from models.jobs.jobs import Job
from models.jobs.route_costs import ROUTE, settle_route
from models.platform.database import Connection
from models.platform.errors import Moved
from models.serving.moves import ReturnReason, count_moves, route_home


def home_of(job: Job) -> str | None:
    """Return the queue that the job was moved from; None where it was not moved, or is there again."""
    home: str | None = (job.arguments.get(ROUTE) or {}).get("home")
    return None if home == job.queue else home


def returned(
    job: Job,
    reason: ReturnReason,
    message: str,
    *,
    stays: bool = False,
    input_tokens: int = 0,
    output_tokens: int = 0,
) -> Moved:
    """Return the move of a job to its home, which settles what it has spent of the spill budget.

    stays                        it does not leave again
    input_tokens, output_tokens  that the endpoint has read and generated for it
    """
    before, home, route = job.arguments[ROUTE], home_of(job), route_home(job, reason, stays=stays)
    assert home is not None
    assert route is not None
    reserved = {"cost": before["cost"]} if "cost" in before else {}  # until it is settled, in the same transaction

    def record(connection: Connection) -> None:
        settle_route(connection, job.id, job.arguments, input_tokens=input_tokens, output_tokens=output_tokens)
        count_moves(connection, before["endpoint"], reason)

    return Moved(message, queue=home, route={**route, **reserved}, record=record)
