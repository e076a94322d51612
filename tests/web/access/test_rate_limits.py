"""Rate limits by account and address, quotas, and limits of unfinished jobs and open streams."""

import socket
import threading
from contextlib import ExitStack

import httpx
import orjson
import pytest
import redis
from openai import OpenAI, RateLimitError

from bench.harness.waiting import wait_until
from models.accounts.plans import Limits
from models.platform.ids import new_id
from tests.web.api_client import ApiUser, app_client, assert_error
from web.access.rate_limits import Limiter, duration, estimate_tokens, network


@pytest.fixture
def limit(user, database):
    """`limit(requests_per_minute=3)`: override the limits of the user's account."""

    def set_limits(**limits):
        with database.connection() as connection:
            connection.execute(
                "UPDATE accounts SET limits = %s::jsonb WHERE id = %s",
                (str(limits).replace("'", '"').replace("None", "null"), user.caller.account_id),
            )

    return set_limits


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0ms"), (0.0171, "18ms"), (1, "1s"), (1.5, "1.5s"), (360, "6m0s"), (61.25, "1m1.25s")]
)
def test_durations_are_written_as_openai_does(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("ip", "key"),
    [("192.0.2.7", "192.0.2.7"), ("::ffff:192.0.2.7", "192.0.2.7"), ("2001:db8:1:2:3::4", "2001:db8:1:2::"),
     ("fe80::1%eth0", "fe80::"), ("", "unknown"), ("nonsense", "unknown")],
)  # fmt: skip
def test_ipv6_addresses_are_limited_by_network(ip, key):
    assert network(ip) == key


@pytest.mark.parametrize(
    ("length", "tokens"), [(None, 1), ("0", 1), ("4000", 1000), ("-5", 1), ("٣", 1), ("9" * 99, 1)]
)
def test_tokens_are_estimated_by_the_declared_length(length, tokens):
    assert estimate_tokens(length) == tokens


def test_headers_report_the_remaining_requests_and_tokens(user, limit):
    limit(requests_per_minute=10, tokens_per_minute=1000)

    headers = user.request("POST", "/v1/responses", json={"input": "x" * 400, "background": True}).headers

    assert (headers["x-ratelimit-limit-requests"], headers["x-ratelimit-remaining-requests"]) == ("10", "9")
    assert headers["x-ratelimit-limit-tokens"] == "1000"
    assert 800 < int(headers["x-ratelimit-remaining-tokens"]) < 900
    assert headers["x-ratelimit-reset-requests"].endswith("s")


def test_a_request_above_the_limit_is_rejected_with_retry_after(user, other_user, limit):
    limit(requests_per_minute=2)
    first, second, third = (user.request("GET", "/v1/models") for _ in range(3))

    message = assert_error(third, 429, code="rate_limit_exceeded")

    assert (first.status_code, second.status_code) == (200, 200)
    assert "2 requests per minute" in message
    assert third.headers["x-should-retry"] == "true"
    assert third.headers["x-ratelimit-remaining-requests"] == "0"
    assert 20 < int(third.headers["retry-after"]) <= 30
    assert 20_000 < int(third.headers["retry-after-ms"]) <= 30_000
    assert other_user.request("GET", "/v1/models").status_code == 200


def test_a_cancel_is_never_rejected(user, limit):
    limit(requests_per_minute=0)

    assert user.request("POST", "/v1/responses/resp_x/cancel").status_code == 404
    assert_error(user.request("GET", "/v1/responses/resp_x"), 429)


def test_headers_are_on_error_responses_too(user, limit):
    limit(requests_per_minute=5)

    assert user.request("GET", "/v1/jobs/nothing").headers["x-ratelimit-remaining-requests"] == "4"


def test_every_response_reports_its_processing_time(user):
    for path in ("/v1/models", "/healthz", "/nowhere"):
        assert int(user.request("GET", path).headers["openai-processing-ms"]) >= 0


def test_public_requests_are_limited_by_address(settings):
    with app_client(settings.model_copy(update={"visits_per_minute": 3, "trusted_proxies": "127.0.0.1"})) as client:
        mine, other = ({"x-forwarded-for": f"192.0.2.1, {new_ip()}"} for _ in range(2))
        statuses = [client.post("/login", json={}, headers=mine).status_code for _ in range(4)]

        assert statuses == [400, 400, 400, 429]
        assert client.post("/login", json={}, headers=other).status_code == 400
        assert client.get("/healthz", headers=mine).status_code == 200


def test_public_requests_for_one_purpose_do_not_use_up_those_for_another(settings):
    with app_client(settings.model_copy(update={"visits_per_minute": 3, "trusted_proxies": "127.0.0.1"})) as client:
        neighbour = {"x-forwarded-for": f"192.0.2.1, {new_ip()}"}
        forgotten = [client.post("/auth/password/forgot", json={}, headers=neighbour).status_code for _ in range(4)]

        assert forgotten == [400, 400, 400, 429]
        assert client.post("/login", json={}, headers=neighbour).status_code == 400
        assert client.post("/signup", json={}, headers=neighbour).status_code == 400


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/auth/refresh"), ("GET", "/openapi.json"), ("GET", "/readyz"), ("GET", "/.well-known/jwks.json")],
)
def test_refreshes_and_public_reads_are_limited_by_address(settings, method, path):
    with app_client(settings.model_copy(update={"visits_per_minute": 1, "trusted_proxies": "127.0.0.1"})) as client:
        mine, other = ({"x-forwarded-for": f"192.0.2.1, {new_ip()}"} for _ in range(2))
        statuses = [client.request(method, path, headers=mine).status_code for _ in range(11)]

        assert 429 not in statuses[:10]
        assert statuses[10] == 429
        assert client.request(method, path, headers=other).status_code != 429
        assert client.get("/healthz", headers=mine).status_code == 200


def test_invalid_tokens_are_limited_by_address_without_affecting_valid_ones(settings, database):
    with app_client(settings.model_copy(update={"visits_per_minute": 2, "trusted_proxies": "127.0.0.0/8"})) as client:
        user, address = ApiUser(client, database), {"x-forwarded-for": new_ip()}
        guesses = [
            client.get("/v1/models", headers={**address, "authorization": f"Bearer guess{number}"}).status_code
            for number in range(3)
        ]

        assert guesses == [401, 401, 429]
        assert user.request("GET", "/v1/models", headers=address).status_code == 200
        user.delete_account()


def test_forwarded_addresses_of_untrusted_clients_are_ignored(settings):
    with app_client(settings.model_copy(update={"visits_per_minute": 3, "trusted_proxies": "192.0.2.0/24"})) as client:
        client.app.state.platform.redis.delete("sangha:limit:address:login:127.0.0.1:requests")
        statuses = [client.post("/login", json={}, headers={"x-forwarded-for": new_ip()}).status_code for _ in range(4)]

        assert statuses[-1] == 429


def new_ip():
    """Return an address that no other test uses."""
    number = int(new_id("ip")[-6:], 16)
    return f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"


def test_without_redis_reads_are_admitted_and_other_requests_are_rejected(user, limit, monkeypatch):
    platform = user.client.app.state.platform
    listener = socket.create_server(("127.0.0.1", 0))
    client = redis.Redis(port=listener.getsockname()[1], socket_timeout=0.05)
    monkeypatch.setattr(platform.gate._limiter, "_client", client)
    monkeypatch.setattr("web.access.rate_limits.PAUSE", 0.01)
    try:
        assert user.request("GET", "/v1/models").status_code == 200
        rejected = user.request("POST", "/v1/responses", json={"input": "x", "background": True})
        assert_error(rejected, 503, code="service_unavailable")
        assert (rejected.headers["retry-after"], rejected.headers["x-should-retry"]) == ("1", "true")
        assert user.request("POST", "/v1/responses/resp_x/cancel").status_code == 404
        limit(requests_per_minute=None, tokens_per_minute=None)
        assert user.create_response()["status"] == "queued"
    finally:
        listener.close()
        client.close()


class HangingRedis:
    """A Redis client whose pool blocks until `fail` is set, and then times out."""

    def __init__(self):
        self.calls = 0
        self.fail = threading.Event()
        self.connection_pool = self

    def get_connection(self):
        self.calls += 1
        assert self.fail.wait(10)
        raise redis.TimeoutError


def test_while_redis_hangs_only_one_request_per_pause_waits_for_it(user):
    hanging = HangingRedis()
    hanging.fail.set()
    limiter = Limiter(hanging, 1)
    limits = Limits(requests_per_minute=1)

    for _ in range(50):
        assert limiter.draw_for_caller(user.caller, limits, cost=1, tokens=0, reads=True) == {}

    assert hanging.calls == 1


def test_the_estimated_tokens_are_stored_with_the_job(user, limit, database, redis_client):
    limit(tokens_per_minute=10_000)
    turn = user.create_response(input="x" * 4000)
    with database.connection() as connection:
        row = connection.execute("SELECT arguments FROM jobs WHERE id = %s", (turn["job_id"],)).fetchone()

    assert row["arguments"]["drawn"] == {"tokens": pytest.approx(1000, rel=0.1), "limit": 10_000, "key_id": None}


@pytest.mark.parametrize("length", [4000, 400_000])
def test_a_body_without_a_declared_length_is_drawn_by_what_was_read(user, limit, database, length):
    """Of a body that is larger than the limit, as much is drawn as the bucket holds."""
    limit(tokens_per_minute=10_000)
    body = orjson.dumps({"input": "x" * length, "background": True})
    chunks = iter([body[: length // 2], body[length // 2 :]])

    response = user.request("POST", "/v1/responses", content=chunks, headers={"content-type": "application/json"})

    assert response.status_code == 200, response.text
    tokens = min(len(body) // 4, 10_000)
    remaining = response.headers.get_list("x-ratelimit-remaining-tokens")
    assert [int(value) for value in remaining] == [pytest.approx(10_000 - tokens, abs=200)]
    with database.connection() as connection:
        row = connection.execute("SELECT arguments FROM jobs WHERE id = %s", (response.json()["job_id"],)).fetchone()
    assert row["arguments"]["drawn"]["tokens"] == tokens  # no more is returned than was drawn


def test_a_body_without_a_declared_length_is_rejected_when_the_tokens_are_used_up(user, limit, database):
    limit(tokens_per_minute=10_000)
    body = orjson.dumps({"input": "x" * 39_000, "background": True})
    headers = {"content-type": "application/json"}

    first, second = (user.request("POST", "/v1/responses", content=iter([body]), headers=headers) for _ in range(2))

    assert first.status_code == 200, first.text
    assert_error(second, 429, code="rate_limit_exceeded")
    assert len(second.headers.get_list("x-ratelimit-remaining-tokens")) == 1
    assert int(second.headers["retry-after"]) > 30


def tokens_left(response):
    return int(response.headers["x-ratelimit-remaining-tokens"])


TURNS = [
    ("/v1/responses", {"input": "hello", "background": True}, "max_output_tokens"),
    (
        "/v1/chat/completions",
        {"messages": [{"role": "user", "content": "hello"}], "stream": True},
        "max_completion_tokens",
    ),
]


@pytest.mark.parametrize(("path", "body", "limit_of_answer"), TURNS)
def test_the_most_tokens_of_the_answer_are_drawn_when_a_turn_starts(user, limit, database, path, body, limit_of_answer):
    limit(tokens_per_minute=10_000)

    headers = {"authorization": f"Bearer {user.token}"}
    with user.client.stream("POST", path, json={**body, limit_of_answer: 3000}, headers=headers) as response:
        assert response.status_code == 200, response.read()
        assert tokens_left(response) == pytest.approx(7000, abs=300)
        assert len(response.headers.get_list("x-ratelimit-remaining-tokens")) == 1

    with database.connection() as connection:
        query = "SELECT arguments FROM jobs WHERE id = %s"
        row = connection.execute(query, (response.headers["x-sangha-job-id"],)).fetchone()
    assert row["arguments"]["drawn"]["tokens"] == pytest.approx(3000, abs=100)


@pytest.mark.parametrize(("tokens_per_minute", "fewest", "most"), [(1_000_000, 900_000, 1_000_000), (100, 0, 1)])
def test_an_answer_draws_no_more_than_the_context_and_the_limit(user, limit, tokens_per_minute, fewest, most):
    limit(tokens_per_minute=tokens_per_minute)
    request = {"input": "x", "background": True, "max_output_tokens": 1_000_000}

    response = user.request("POST", "/v1/responses", json=request)

    assert response.status_code == 200
    assert fewest <= tokens_left(response) <= most


def test_a_turn_whose_answer_does_not_fit_the_limit_draws_nothing(user, limit):
    # Given an account that has drawn most of its tokens
    limit(tokens_per_minute=10_000)
    request = {"input": "x" * 4000, "background": True, "max_output_tokens": 7000}
    left = tokens_left(user.request("POST", "/v1/responses", json=request))
    # When it starts further turns
    for _ in range(3):
        assert_error(user.request("POST", "/v1/responses", json=request), 429, code="rate_limit_exceeded")
    # Then these have drawn neither their input nor their answers
    smaller = {**request, "input": "x", "max_output_tokens": 16}
    assert tokens_left(user.request("POST", "/v1/responses", json=smaller)) == pytest.approx(left - 30, abs=400)


def test_a_turn_that_is_refused_returns_its_tokens(user, limit):
    limit(tokens_per_minute=10_000)
    request = {"input": "x", "background": True, "max_output_tokens": 5000, "previous_response_id": "resp_unknown"}

    for _ in range(3):
        assert user.request("POST", "/v1/responses", json=request).status_code == 400


def test_a_repeated_request_draws_the_tokens_of_its_turn_once(user, limit):
    limit(tokens_per_minute=10_000)
    request = {"input": "x", "background": True, "max_output_tokens": 9000}
    headers = {"idempotency-key": new_id("key")}

    responses = [user.request("POST", "/v1/responses", json=request, headers=headers) for _ in range(4)]

    assert [response.status_code for response in responses] == [200] * 4


def test_the_official_client_raises_rate_limit_errors(user, limit):
    limit(requests_per_minute=1)
    client = OpenAI(api_key=user.token, base_url=f"{user.client.base_url}/v1", max_retries=0)

    client.models.list()
    with pytest.raises(RateLimitError) as error:
        client.models.list()

    assert error.value.code == "rate_limit_exceeded"
    assert error.value.response.headers["x-ratelimit-limit-requests"] == "1"


def test_an_exhausted_quota_is_a_permanent_insufficient_quota_error(user, limit):
    limit(tokens_per_month=5000)
    user.create_response(max_output_tokens=3000)

    response = user.request("POST", "/v1/responses", json={"input": "x", "background": True, "max_output_tokens": 3000})

    assert_error(response, 429, code="insufficient_quota")
    assert response.json()["error"]["type"] == "insufficient_quota"
    assert response.headers["x-should-retry"] == "false"
    assert "retry-after" not in response.headers


def test_a_cancelled_turn_releases_its_reserved_tokens(user, limit):
    limit(tokens_per_month=5000)
    turn = user.create_response(max_output_tokens=3000)
    reserved = user.request("GET", "/v1/account/usage").json()
    user.request("POST", f"/v1/responses/{turn['id']}/cancel")

    released = user.request("GET", "/v1/account/usage").json()

    assert 3000 < reserved["tokens_reserved"] < 4096
    assert (released["tokens_reserved"], released["tokens_used"], released["tokens_limit"]) == (0, 0, 5000)


def test_unfinished_jobs_are_limited(user, limit):
    limit(unfinished_jobs=1)
    user.create_response()

    response = user.request("POST", "/v1/responses", json={"input": "x", "background": True})

    assert_error(response, 429, code="too_many_jobs")
    assert response.headers["x-should-retry"] == "true"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/responses", {"input": "x" * 5000, "background": True}),
        ("/v1/responses", {"input": "x", "instructions": "i" * 5000, "background": True}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x" * 5000}]}),
        ("/v1/embeddings", {"model": "default", "input": ["x" * 5000]}),
        ("/v1/memories", {"text": "x" * 5000}),
        ("/v1/responses/input_tokens", {"input": "x" * 5000}),
    ],
)
def test_bytes_of_unfinished_jobs_are_limited(user, limit, path, body):
    """Given a waiting turn, when a request would exceed the bytes together with it, then it gets a 429, and a 413 if it
    exceeds them alone.
    """
    limit(unfinished_bytes=20_000)
    user.request("POST", "/v1/responses", json={"input": "y" * 16_000, "background": True}).raise_for_status()

    refused = user.request("POST", path, json=body)
    limit(unfinished_bytes=4_000)
    too_large = user.request("POST", path, json=body)

    assert_error(refused, 429, code="too_many_job_bytes")
    assert_error(too_large, 413, code="job_too_large")


@pytest.mark.parametrize("stream_limit", [50, None])
def test_a_thousand_streams_of_one_account_do_not_block_other_accounts(api, user, other_user, limit, stream_limit):
    limit(streams=stream_limit)
    job = user.create_response()["job_id"]
    path = f"/v1/jobs/{job}/events"
    with ExitStack() as open_streams:
        greedy_client = open_streams.enter_context(
            httpx.Client(base_url=api.base_url, limits=httpx.Limits(max_connections=1100), timeout=30)
        )
        statuses = [
            open_streams.enter_context(
                greedy_client.stream("GET", path, headers={"authorization": f"Bearer {user.token}"})
            ).status_code
            for _ in range(1000 if stream_limit is None else stream_limit + 1)
        ]

        assert statuses == ([200] * 1000 if stream_limit is None else [*[200] * stream_limit, 429])
        if stream_limit:
            response = user.request("POST", "/v1/responses", json={"input": "x", "stream": True})
            assert_error(response, 429, code="too_many_streams")
            assert len(user.jobs()) == 1
        with api.stream(
            "POST",
            "/v1/responses",
            json={"input": "hello", "stream": True},
            headers={"authorization": f"Bearer {other_user.token}"},
        ) as stream:
            assert next(stream.iter_lines()) == "id: 0"
    streams = api.app.state.platform.streams
    wait_until(lambda: not streams.permits)
