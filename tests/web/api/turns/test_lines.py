"""Lines of batches are rejected with the status and the envelope of the same request over HTTP."""

from dataclasses import replace

import pytest

from models.accounts.plans import UNLIMITED, Limits
from models.platform.errors import RequestError
from models.platform.ids import new_id
from pipelines.chat.start_turn import new_turn_ids, start_turns
from pipelines.embeddings.enqueue_embedding import enqueue_embedding
from pipelines.requests.lines import LineContext, LineTexts, line_error, line_turn
from pipelines.requests.serving import Serving

RESPONSES, CHAT, TEXT, EMBEDDINGS = "/v1/responses", "/v1/chat/completions", "/v1/completions", "/v1/embeddings"
HELLO = [{"role": "user", "content": "hello"}]
SCHEMA = {"type": "object", "properties": {"a": {"type": "banana"}}}

INVALID = [
    (RESPONSES, {}),
    (RESPONSES, {"input": 5}),
    (RESPONSES, {"input": [{"type": "input_image", "image_url": "x"}]}),
    (RESPONSES, {"input": "x", "temperature": 3}),
    (RESPONSES, {"input": "x", "prompt": {"id": "p"}}),
    (RESPONSES, {"input": "x", "metadata": {"k" * 65: "v"}}),
    (RESPONSES, {"input": "x", "model": "gpt-4o"}),
    (RESPONSES, {"input": "x", "model": "agent/nobody"}),
    (RESPONSES, {"input": "x", "tools": [{"type": "mcp", "server_label": "unregistered"}]}),
    (RESPONSES, {"input": "x", "text": {"format": {"type": "json_schema", "name": "s", "schema": SCHEMA,
                                                   "strict": True}}}),
    (RESPONSES, {"input": [{"type": "item_reference", "id": "msg_of_others"}]}),
    (CHAT, {"messages": []}),
    (CHAT, {"messages": HELLO, "n": 9}),
    (CHAT, {"messages": HELLO, "n": 2, "store": True}),
    (CHAT, {"messages": HELLO, "model": "gpt-4o"}),
    (CHAT, {"messages": [{"role": "tool", "content": "x", "tool_call_id": "c"}]}),
    (CHAT, {"messages": HELLO, "response_format": {"type": "json_schema", "json_schema": {"name": "s", "strict": True,
                                                                                        "schema": SCHEMA}}}),
    (TEXT, {"prompt": [1, 2]}),
    (TEXT, {"prompt": "x", "model": "agent/assistant"}),
    (EMBEDDINGS, {"input": []}),
    (EMBEDDINGS, {"input": [1, 2]}),
    (EMBEDDINGS, {"input": "x", "model": "gpt-4o"}),
    (EMBEDDINGS, {"input": ["x" * 600_000, "y" * 600_000]}),
]  # fmt: skip


@pytest.fixture
def run_line(user, settings):
    """Run a line as its user, and return the answer to what it is rejected with."""

    def run_line(endpoint, body, allowance=UNLIMITED):
        context = LineContext(Serving.of(settings), user.database, user.caller, allowance.limits)
        try:
            work = line_turn(endpoint, body, context)
            if isinstance(work, LineTexts):
                enqueue_embedding(
                    user.database, user.caller, work.texts, work.dimensions, new_id("job"), allowance, batch=True
                )
            else:
                ids = [new_turn_ids() for _ in work.turns]
                start_turns(user.database, user.caller, work.turns, ids, allowance, models=context.serving.models)
        except RequestError as error:
            return line_error(error)
        return None

    return run_line


@pytest.mark.parametrize(("endpoint", "body"), INVALID)
def test_a_line_is_rejected_as_over_http(user, run_line, endpoint, body):
    over_http = user.request("POST", endpoint, json=body)

    answer = run_line(endpoint, body)

    assert over_http.status_code >= 400
    assert answer is not None
    assert (answer.status_code, answer.body) == (over_http.status_code, over_http.json())
    assert answer.failed


@pytest.mark.parametrize(
    ("endpoint", "body"), [(RESPONSES, {"input": "x"}), (CHAT, {"messages": HELLO}), (EMBEDDINGS, {"input": "x"})]
)
@pytest.mark.parametrize("limits", [{"models": []}, {"tokens_per_month": 0}])
def test_limits_apply_to_a_line_as_over_http(user, run_line, endpoint, body, limits):
    with user.database.connection() as connection:
        connection.execute(
            "UPDATE accounts SET limits = jsonb_build_object(%(name)s::text, %(value)s::jsonb) WHERE id = %(id)s",
            {"name": next(iter(limits)), "value": str(next(iter(limits.values()))), "id": user.caller.account_id},
        )
    over_http = user.request("POST", endpoint, json=body)

    answer = run_line(endpoint, body, replace(UNLIMITED, limits=Limits(**limits)))

    assert over_http.status_code in (403, 429)
    assert answer is not None
    assert (answer.status_code, answer.body) == (over_http.status_code, over_http.json())


@pytest.mark.parametrize(
    ("endpoint", "body", "queue"),
    [
        (RESPONSES, {"input": "x"}, "inference_batch"),
        (CHAT, {"messages": HELLO, "n": 2}, "inference_batch"),
        (TEXT, {"prompt": ["a", "b"]}, "inference_batch"),
        (EMBEDDINGS, {"input": "x"}, "memory_batch"),
    ],
)
def test_the_work_of_a_line_is_in_the_queue_of_background_work(user, run_line, endpoint, body, queue):
    assert run_line(endpoint, body) is None

    with user.database.connection() as connection:
        rows = connection.execute(
            "SELECT DISTINCT queue FROM jobs WHERE account_id = %s", (user.caller.account_id,)
        ).fetchall()
    assert rows == [{"queue": queue}]
