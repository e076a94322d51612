"""The turns, as responses. The status of a response is its job's state, which is stored once and joined when read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal

from psycopg.types.json import Json, Jsonb

from models.accounts.ownership import Access, owned
from models.jobs import jobs
from models.jobs import usage as usage_records
from models.jobs.jobs import ENDED, Job, NewJob
from models.jobs.serial_keys import lock_serial_key
from models.jobs.usage import Segment, TokenUsage, UsageSource
from models.journal import archive
from models.platform.database import Connection, fetch_all, fetch_one
from models.platform.errors import PermanentFailure
from models.platform.records import columns

__all__ = [
    "Response", "ResponseStatus", "TokenUsage", "bill", "chain_items", "finish", "insert_with_job",
    "read", "read_of_job",
]  # fmt: skip

#: Seconds for which the result of a turn that is not stored is kept after its end.
UNREAD_SECONDS = 300.0

ResponseStatus = Literal["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"]


@dataclass(frozen=True, slots=True)
class Response:
    """A row of `responses` with columns of its job.

    request       the parameters: model, instructions, sampling, metadata, …
    input         the items of this turn; `output` has the generated ones
    thread        the conversation, or the first response of the chain; one turn of a thread runs at a time
    recalled      the memories in its prompt, the best first: id, kind, score; see pipelines/chat/recalled_memories.py
    unremembered  whether its text is still to be remembered
    completed_at  when its answer was complete
    is_completion  the API of chat completions shows it
    space         the end user whose memories it recalls and is added to; empty for those of its user
    route         the way of its job between a local model and an endpoint, see `models.serving.moves`; None: not moved
    served_tier   the tier that has served it; None: that of the request
    expires_at    set if the turn is not stored: it is deleted when its end was read, or UNREAD_SECONDS after it
    """

    id: str
    account_id: str
    user_id: str | None
    job_id: str
    conversation_id: str | None
    previous_id: str | None
    thread: str
    request: dict[str, Any]
    input: list[dict[str, Any]]
    created_at: datetime
    output: Sequence[Mapping[str, Any]] = ()
    usage: Mapping[str, Any] | None = None
    incomplete_details: Mapping[str, Any] | None = None
    job_state: str = "queued"
    job_attempt: int = 0
    job_error: Mapping[str, Any] | None = None
    rewound_at: int | None = None
    expires_at: datetime | None = None
    recalled: Sequence[Mapping[str, Any]] = ()
    unremembered: bool = False
    completed_at: datetime | None = None
    is_completion: bool = False
    space: str = ""
    route: Mapping[str, Any] | None = None
    served_tier: str | None = None

    @property
    def engine_model(self) -> str:
        """The model that generates, also where an agent is asked."""
        return str(self.request.get("engine_model") or self.request["model"])

    @property
    def status(self) -> ResponseStatus:
        """The status in OpenAI's terms."""
        match self.job_state:
            case "completed":
                return "incomplete" if self.incomplete_details else "completed"
            case "failed" | "dead":
                return "failed"
            case "cancelled":
                return "cancelled"
            case "scheduled" | "queued" if self.job_attempt == 0:
                return "queued"
            case _:
                return "in_progress"

    @property
    def ended(self) -> bool:
        """Whether the status is final."""
        return self.job_state in ENDED


INSERT = """
INSERT INTO responses (
    id, account_id, user_id, job_id, conversation_id, previous_id, thread, request, input, created_at, expires_at,
    unremembered, is_completion, space)
VALUES (%(response_id)s, %(account_id)s, %(user_id)s, %(job_id)s, %(conversation_id)s, %(previous_id)s, %(thread)s,
        %(request)s, %(input)s, %(created_at)s, %(expires_at)s, %(unremembered)s, %(is_completion)s, %(space)s)
"""


# A turn with its job and the first events of its journal. One statement needs no transaction around it, and takes a
# third of the web process's CPU time for three statements between BEGIN and COMMIT.
INSERT_WITH_JOB = f"WITH job AS ({jobs.INSERT}), opening AS ({archive.INSERT}) {INSERT}"


INSERT_WITHOUT_EVENTS = f"WITH job AS ({jobs.INSERT}) {INSERT}"


def insert_with_job(connection: Connection, response: Response, job: NewJob) -> None:
    """Insert a turn, its job and its opening events, if any. The caller has locked the serial key, unless it is new."""
    parameters = jobs.insert_parameters(job) | insert_parameters(response)
    if job.opening:
        connection.execute(INSERT_WITH_JOB, parameters | archive.insert_parameters(job.id, job.opening))
    else:
        connection.execute(INSERT_WITHOUT_EVENTS, parameters)


def insert(connection: Connection, response: Response) -> None:
    """Insert a turn whose job exists, unless an earlier attempt has."""
    connection.execute(f"{INSERT} ON CONFLICT (id) DO NOTHING", insert_parameters(response))


def insert_parameters(response: Response) -> dict[str, Any]:
    """Return the parameters of `INSERT`."""
    return {
        "response_id": response.id,
        "account_id": response.account_id,
        "user_id": response.user_id,
        "job_id": response.job_id,
        "conversation_id": response.conversation_id,
        "previous_id": response.previous_id,
        "thread": response.thread,
        "request": Json(response.request),
        "input": Jsonb(response.input),
        "created_at": response.created_at,
        "expires_at": response.expires_at,
        "unremembered": response.unremembered,
        "is_completion": response.is_completion,
        "space": response.space,
    }


OF_RESPONSE = columns(Response, "responses", omit=("job_state", "job_attempt", "job_error", "rewound_at", "route"))

#: What a response has of its job.
OF_JOB = """
jobs.state AS job_state, jobs.attempt AS job_attempt, jobs.error AS job_error, jobs.rewound_at,
jobs.arguments -> 'route' AS route"""

#: The fields of a response.
SELECT = f"""
SELECT {OF_RESPONSE}, {OF_JOB}
FROM responses JOIN jobs ON jobs.id = responses.job_id
"""

#: The condition that a caller has access to a response. Those of a deleted user belong to nobody.
ACCESSIBLE = owned("responses.account_id", "coalesce(responses.user_id, '')")

READ = f"""
{SELECT}
WHERE responses.id = %(id)s AND {ACCESSIBLE}
"""

# In a second statement: usually the job ended recently or not yet, and the view has several partitions to look at.
READ_MOVED = READ.replace("JOIN jobs", "JOIN all_jobs AS jobs")


def read(connection: Connection, response_id: str, access: Access) -> Response | None:
    """Return the response if the caller has access to it."""
    parameters = {"id": response_id, **access.parameters}
    row = fetch_one(connection, READ, parameters) or fetch_one(connection, READ_MOVED, parameters)
    return Response(**row) if row else None


def read_of_job(connection: Connection, job: Job) -> Response:
    """Return the response that a job names in its arguments. Raises PermanentFailure if it has been deleted."""
    response = read(connection, job.arguments["response_id"], Access.account(job.account_id))
    if response is None:
        raise PermanentFailure("The response was deleted", code="deleted")
    return response


READ_OF_JOBS = f"""
{SELECT}
WHERE responses.job_id = ANY (%(job_ids)s) AND responses.account_id = %(account_id)s
"""


def read_of_jobs(connection: Connection, job_ids: Sequence[str], account_id: str) -> list[Response]:
    """Return the responses of an account's jobs, unordered, of those that exist."""
    parameters = {"job_ids": list(job_ids), "account_id": account_id}
    found = [Response(**row) for row in fetch_all(connection, READ_OF_JOBS, parameters)]
    if missing := set(job_ids) - {response.job_id for response in found}:
        moved = READ_OF_JOBS.replace("JOIN jobs ", "JOIN all_jobs AS jobs ")
        rows = fetch_all(connection, moved, {**parameters, "job_ids": list(missing)})
        found.extend(Response(**row) for row in rows)
    return found


# The thread of a stored response, which is not deleted before the transaction ends. A turn cannot continue one that is
# not stored.
THREAD = f"SELECT thread FROM responses WHERE id = %(id)s AND {ACCESSIBLE} AND expires_at IS NULL FOR KEY SHARE"


def lock_thread_of(connection: Connection, response_id: str, access: Access) -> str | None:
    """Return the thread of a stored response of the caller, and lock the response until the transaction ends."""
    row = fetch_one(connection, THREAD, {"id": response_id, **access.parameters})
    return row["thread"] if row else None


UNFINISHED = """
SELECT id FROM jobs
WHERE serial_key = %(thread)s AND account_id = %(account_id)s
  AND state IN ('scheduled', 'queued', 'running', 'waiting')
"""


def unfinished_jobs(connection: Connection, thread: str, account_id: str) -> list[str]:
    """Return the jobs of a thread's unfinished turns, and lock the thread until the transaction ends."""
    lock_serial_key(connection, thread)
    return [row["id"] for row in fetch_all(connection, UNFINISHED, {"thread": thread, "account_id": account_id})]


ITEMS = f"""
SELECT item FROM responses CROSS JOIN LATERAL jsonb_array_elements(input || output) AS item
WHERE id = ANY(%(ids)s) AND {ACCESSIBLE} AND expires_at IS NULL
"""


def read_items(connection: Connection, response_ids: Sequence[str], access: Access) -> list[dict[str, Any]]:
    """Return the input and output items of the caller's stored responses, unordered."""
    rows = fetch_all(connection, ITEMS, {"ids": list(response_ids), **access.parameters})
    return [row["item"] for row in rows]


FINISH = """
UPDATE responses SET output = %(output)s, usage = %(usage)s, incomplete_details = %(incomplete_details)s,
                     recalled = %(recalled)s, completed_at = %(completed_at)s,
                     served_tier = %(served_tier)s
WHERE id = %(id)s
"""


def finish(connection: Connection, response: Response) -> None:
    """Store the output of a turn in the transaction that ends its job."""
    connection.execute(
        FINISH,
        {
            "id": response.id,
            "output": Jsonb(list(response.output)),
            "recalled": Jsonb(list(response.recalled)),
            "served_tier": response.served_tier,
            "completed_at": response.completed_at,
            "usage": Jsonb(response.usage) if response.usage is not None else None,
            "incomplete_details": Jsonb(response.incomplete_details) if response.incomplete_details else None,
        },
    )


CHAIN = """
WITH RECURSIVE chain AS (
    SELECT previous_id, input, output, 1 AS depth FROM responses WHERE id = %(id)s AND account_id = %(account_id)s
    UNION ALL
    SELECT older.previous_id, older.input, older.output, chain.depth + 1
    FROM chain JOIN responses AS older ON older.id = chain.previous_id
    WHERE older.account_id = %(account_id)s AND chain.depth < %(limit)s
)
SELECT input, output FROM chain ORDER BY depth DESC
"""


def chain_items(connection: Connection, response_id: str, account_id: str, limit: int) -> list[dict[str, Any]]:
    """Return the items of a response and of those before it, at most `limit` turns, oldest first."""
    rows = fetch_all(connection, CHAIN, {"id": response_id, "account_id": account_id, "limit": limit})
    return [item for row in rows for item in (*row["input"], *row["output"])]


def bill(
    connection: Connection,
    response: Response,
    usage: TokenUsage,
    source: UsageSource,
    segments: Sequence[Segment] = (),
) -> None:
    """Store a turn's usage and post its cost, that of each segment at the price of its engine."""
    agent = (response.request.get("agent") or {}).get("name")
    if response.served_tier == "default" and source.service_class == "priority":
        source = replace(source, service_class="standard")
    usage_records.bill(
        connection,
        usage,
        job_id=response.job_id,
        account_id=response.account_id,
        model=response.engine_model,
        source=replace(source, agent=agent) if agent else source,
        segments=segments,
    )
