"""Webhook endpoints with a real receiver, and their jobs, which the tests run."""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest

from models.accounts import accounts
from models.accounts.accounts import Caller, Role
from models.accounts.audit import RequestOrigin
from models.delivery import deliveries, endpoints, events
from models.delivery.deliveries import Delivery
from models.delivery.endpoints import Endpoint
from models.jobs import attempts
from models.jobs.attempt_context import Attempt
from models.jobs.attempts import Ending
from models.jobs.jobs import NewJob
from models.platform.database import Database, fetch_all
from models.platform.errors import Moved
from models.platform.ids import new_id
from models.platform.settings import Settings
from pipelines.agents import event_loop
from pipelines.delivery import webhook_delivery, webhook_endpoints
from pipelines.delivery.webhook_client import WebhookClient
from pipelines.delivery.webhook_delivery import WebhookSender
from pipelines.delivery.webhook_endpoints import EndpointValues
from tests.accounts import delete_accounts
from tests.pipelines.agents.http_server import http_server, respond
from tests.pipelines.conftest import Begin, Settle

Answer = Callable[[BaseHTTPRequestHandler], None]


def status(code: int, body: bytes = b"", **headers: str) -> Answer:
    """Return an answer with a status."""
    return lambda request: respond(request, body, code, **headers)


@dataclass
class Receiver:
    """A receiver of webhooks that answers with `answer` and records the requests."""

    answer: Answer
    url: str = ""
    requests: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    hang: threading.Event = field(default_factory=threading.Event)

    def handle(self, request: BaseHTTPRequestHandler) -> None:
        """Record a request and answer it."""
        body = request.rfile.read(int(request.headers["Content-Length"]))
        self.requests.append(({name.lower(): value for name, value in request.headers.items()}, body))
        self.answer(request)

    def never(self, request: BaseHTTPRequestHandler) -> None:
        """Answer nothing until the test ends."""
        self.hang.wait(60)
        request.close_connection = True

    def slowly(self, request: BaseHTTPRequestHandler) -> None:
        """Begin an answer with a status, and never end its body."""
        request.send_response(200)
        request.send_header("Content-Length", "100")
        request.end_headers()
        request.wfile.write(b"the beginning")
        self.never(request)


@pytest.fixture
def receive() -> Iterator[Callable[..., Receiver]]:
    """`receive(answer, tls)` starts a receiver."""
    with ExitStack() as stack:

        def start(answer: Answer | None = None, tls: Any = None) -> Receiver:
            receiver = Receiver(answer or status(204))
            stack.callback(receiver.hang.set)
            url = stack.enter_context(http_server(receiver.handle, tls))
            receiver.url = url.replace("http:", "https:") if tls else url
            return receiver

        yield start


@pytest.fixture
def receiver(receive: Callable[..., Receiver]) -> Receiver:
    """A receiver that accepts everything."""
    return receive()


@pytest.fixture
def caller(database: Database) -> Iterator[Caller]:
    """The owner of an account of the test's own."""
    with database.transaction() as connection:
        member = accounts.create(connection, email=f"{new_id('me')}@example.com", password_hash=None)
    yield Caller(member.user_id, member.account_id, Role.OWNER)
    delete_accounts(database, [member.account_id])


UNFINISHED = """
SELECT id, kind, queue, state, arguments, extract(epoch FROM run_at - now())::float AS delay FROM jobs
WHERE lane = %s AND state IN ('queued', 'scheduled', 'running') ORDER BY run_at, id
"""


class Webhooks:
    """Endpoints and events of an account; `step` runs the next job of an endpoint."""

    def __init__(self, database: Database, settings: Settings, caller: Caller, begin: Begin, settle: Settle) -> None:
        self.database = database
        self.settings = settings
        self.caller = caller
        self.sender = WebhookSender.open(settings)
        self._clients = [self.sender.client, self.sender.batch_client]
        self._begin = begin
        self._settle = settle

    def use(self, client: WebhookClient, **settings: Any) -> None:
        """Send by this client from now on."""
        self._clients.append(client)
        self.sender = WebhookSender(self.settings.model_copy(update=settings), client, client)

    def close(self) -> None:
        """Close the connections."""
        for client in self._clients:
            event_loop.run(client.aclose, lambda: False)

    def create(self, url: str, *event_types: str, **values: Any) -> tuple[Endpoint, str]:
        """Create an endpoint, and return it with its secret."""
        given = EndpointValues(url=url, event_types=event_types or ("*",), **values)
        endpoint_id = new_id("we")
        return webhook_endpoints.create(self.database, self.settings, self.caller, given, endpoint_id, RequestOrigin())

    def add(self, url: str, *event_types: str, **values: Any) -> Endpoint:
        """Create an endpoint."""
        return self.create(url, *event_types, **values)[0]

    def read(self, endpoint: Endpoint) -> Endpoint:
        """Read an endpoint again."""
        with self.database.connection() as connection:
            found = endpoints.read(connection, endpoint.id, self.caller.account_id)
        assert found is not None
        return found

    def record(self, type: str = "file.created", **data: Any) -> None:
        """Record an event."""
        with self.database.transaction() as connection:
            events.record(connection, self.caller.account_id, type, data or {"id": "file_1"})

    def jobs(self, endpoint: Endpoint) -> list[dict[str, Any]]:
        """Return the unfinished jobs of an endpoint."""
        with self.database.connection() as connection:
            return fetch_all(connection, UNFINISHED, (endpoint.id,))

    def deliveries(self, endpoint: Endpoint, **options: Any) -> list[Delivery]:
        """Return the deliveries of an endpoint, oldest first."""
        with self.database.connection() as connection:
            page = deliveries.page(connection, self.caller.account_id, endpoint_id=endpoint.id, limit=10_000, **options)
        return page[::-1]

    def begin(self, endpoint: Endpoint, kind: str = "webhook.deliver") -> Attempt:
        """Claim the next job of an endpoint, as if it were due."""
        job = next(job for job in self.jobs(endpoint) if job["kind"] == kind)
        return self._begin(NewJob(kind, "platform", id=job["id"]))

    def again(self, attempt: Attempt) -> Attempt:
        """Claim the job of an attempt again, also after its end."""
        return self._begin(NewJob(attempt.job.kind, "platform", id=attempt.job.id))

    def run(self, attempt: Attempt) -> Ending | Moved:
        """Run an attempt, and settle it."""
        try:
            outcome = webhook_delivery.run(self.sender, attempt)
        except Moved as moved:
            with self.database.transaction() as connection:
                attempts.move(connection, attempt.job, moved)
            return moved
        self._settle(attempt, outcome)
        return outcome

    def step(self, endpoint: Endpoint) -> Ending | Moved:
        """Run the next job of an endpoint."""
        return self.run(self.begin(endpoint))

    def age_failures(self, endpoint: Endpoint, days: float) -> None:
        """Have the failures of an endpoint begin some days earlier."""
        with self.database.connection() as connection:
            connection.execute(
                "UPDATE webhook_endpoints SET failing_since = failing_since - make_interval(secs => %s) WHERE id = %s",
                (days * 86_400, endpoint.id),
            )


@pytest.fixture
def webhooks(
    database: Database, settings: Settings, caller: Caller, begin: Begin, settle: Settle
) -> Iterator[Webhooks]:
    """Endpoints and events of an account. Requests may go to the loopback address."""
    settings = settings.model_copy(update={"egress_allow": ("127.0.0.1",)})
    webhooks = Webhooks(database, settings, caller, begin, settle)
    yield webhooks
    webhooks.close()
