"""A trace over real processes is one tree, from the caller's request to the last call of a tool."""

from collections.abc import Callable, Iterator

import httpx
import pytest

from bench.harness.waiting import wait_until
from models.platform import tracing
from tests.journeys.shop import ALLOW, Shop, serve_shop
from tests.journeys.stack import ON_REDIS, AccountOwner, Installation
from tests.otlp_receiver import OtlpReceiver, ReceivedSpan, otlp_receiver

#: The caller's span.
CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
TRACE_ID, CALLER_SPAN = CALLER.split("-")[1:3]

pytestmark = ON_REDIS


@pytest.fixture(scope="module", autouse=True)
def receiver() -> Iterator[OtlpReceiver]:
    """A receiver for all processes that this module starts, and for this one, which releases jobs of dead workers."""
    with otlp_receiver() as receiver, pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint)
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        tracing.start_tracing("test", "0")
        yield receiver
        tracing.stop_tracing()


@pytest.fixture
def shop() -> Iterator[Shop]:
    with serve_shop() as shop:
        yield shop


def start_turn(user: AccountOwner, model: str, trace_id: str) -> str:
    """Create a background turn within a caller's trace. Returns its id."""
    response = httpx.post(
        user.installation.addresses()[0] + "/v1/responses",
        headers={**user.headers, "traceparent": CALLER.replace(TRACE_ID, trace_id)},
        json={"input": "go", "model": model, "background": True},
        timeout=30,
    )
    assert response.status_code == 200, response.text
    assert response.headers["traceresponse"].split("-")[1] == trace_id
    return str(response.json()["id"])


def create_agent(user: AccountOwner, name: str, **fields: object) -> None:
    response = user.request("POST", "/v1/agents", json={"name": name, **fields})
    assert response.status_code == 201, response.text


def when(spans: Callable[[], list[ReceivedSpan]], names: set[str]) -> list[ReceivedSpan]:
    """Return the spans of a trace once those with these names have arrived."""
    wait_until(lambda: names <= {span.name for span in spans()})
    return spans()


def assert_one_tree(spans: list[ReceivedSpan]) -> None:
    """Check that all spans are below the caller's, and that none is there twice."""
    ids = [span.span_id for span in spans]
    assert len(ids) == len(set(ids))
    orphans = [span.name for span in spans if span.parent_id not in {*ids, CALLER_SPAN}]
    assert not orphans
    assert [span.name for span in spans if span.parent_id == CALLER_SPAN] == ["POST /v1/responses"]


def test_a_delegated_turn_with_a_killed_worker_is_one_tree(
    stack: Installation, user: AccountOwner, shop: Shop, receiver: OtlpReceiver
):
    # Given an agent that delegates to one that calls a tool of a server, on two slow workers
    for worker in [stack.launch_worker("tokens=30,rate=20", **ALLOW) for _ in range(2)]:
        worker.wait_ready(60)
    stack.start_worker("tokens=8,rate=0", "tools", **ALLOW)
    create_agent(user, "buyer", instructions="call shop__buy", tools=[shop.tool], approval="never")
    create_agent(user, "boss", instructions="call agents__buyer", agents=["buyer"])
    response_id = start_turn(user, "agent/boss", TRACE_ID)

    # When the worker of the delegated turn is killed while it answers
    wait_until(lambda: shop.calls)
    running = "SELECT id FROM jobs WHERE account_id = %s AND kind = 'turn.run' AND depth = 1 AND state = 'running'"
    child, *_ = wait_until(lambda: stack.rows(running, user.account))
    runner = stack.runner(child["id"])
    runner.kill()
    stack.release_jobs(runner)
    assert user.wait_for_end(response_id)["status"] == "completed"

    # Then its trace has everything, also the killed attempt, which the next one links to
    names = {"invoke_agent boss", "invoke_agent buyer", "execute_tool buy", "MCP send tools/call buy", "chat scripted"}
    wait_until(lambda: sum(s.name == "process turn.run" for s in receiver.trace(TRACE_ID)) >= attempts(stack, user))
    spans = when(lambda: receiver.trace(TRACE_ID), names - {"chat scripted"})
    assert_one_tree(spans)
    assert any(span.name.startswith("chat ") for span in spans)
    crashed = [span for span in spans if span.attributes.get("sangha.job.outcome") == "crashed"]
    assert [(span.attributes["sangha.job.id"], span.failed) for span in crashed] == [(child["id"], True)]
    assert crashed[0].attributes["error.type"] == "worker_lost"
    assert any(crashed[0].span_id in span.links for span in spans)


def attempts(stack: Installation, user: AccountOwner) -> int:
    """Return how many attempts at turns there were."""
    row, *_ = stack.rows(
        "SELECT sum(attempt) AS count FROM jobs WHERE account_id = %s AND kind = 'turn.run'", user.account
    )
    return int(row["count"])


def test_spans_have_what_the_conventions_name_and_no_content(
    stack: Installation, user: AccountOwner, receiver: OtlpReceiver
):
    trace_id = "1" * 32
    stack.start_worker("tokens=8,rate=0")

    response = user.wait_for_end(start_turn(user, "default", trace_id))

    def of_turn() -> list[ReceivedSpan]:
        return [span for span in receiver.trace(trace_id) if span.name != "process memory.remember"]

    wait_until(lambda: len(of_turn()) >= 3)
    by_kind = {span.kind: span for span in of_turn()}
    request, attempt, chat = by_kind["server"], by_kind["consumer"], by_kind["internal"]
    assert (request.name, request.attributes["http.response.status_code"]) == ("POST /v1/responses", 200)
    assert request.attributes["http.route"] == "/v1/responses"
    assert attempt.parent_id == request.span_id
    assert attempt.attributes["sangha.job.outcome"] == "completed"
    assert (chat.parent_id, chat.events) == (attempt.span_id, ["gen_ai.first_token"])
    assert chat.attributes["gen_ai.operation.name"] == "chat"
    assert chat.attributes["gen_ai.usage.output_tokens"] == response["usage"]["output_tokens"] == 8
    assert chat.attributes["gen_ai.response.finish_reasons"] == ["stop"]
    assert not {"gen_ai.input.messages", "gen_ai.output.messages"} & chat.attributes.keys()
    assert request.resource["service.name"] == "sangha"
    assert (request.resource["process.command"], chat.resource["process.command"]) == ("web", "worker")


def test_a_collector_that_fails_neither_delays_nor_fails_a_turn(
    stack: Installation, user: AccountOwner, receiver: OtlpReceiver
):
    worker = stack.start_worker("tokens=8,rate=0")
    receiver.status, before = 400, receiver.requests
    try:
        for number in range(5):
            response_id = start_turn(user, "default", f"{number + 2}" * 32)
            assert user.wait_for_end(response_id)["status"] == "completed"
        wait_until(lambda: receiver.requests >= before + 3)
    finally:
        receiver.status = 200

    lines = worker.log.path.read_text()
    assert lines.count("Traces are lost") == 1
    assert "Traceback" not in lines
