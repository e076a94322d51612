"""Requests without an Idempotency-Key, and their retries."""

from dataclasses import replace

import pytest
import redis
from starlette.datastructures import Headers

from models.accounts.accounts import Caller, Role
from models.platform.ids import new_id
from web.access.idempotency import KEY
from web.access.implicit_keys import implicit_key
from web.access.retries import RETRY_COUNT, RetriableRequest


@pytest.fixture
def request_of(redis_client):
    """`request_of(count)` → a request of one caller, with a number if `count` is not None."""
    caller = Caller(new_id("user"), new_id("acct"), Role.MEMBER)

    def request_of(count, body=b"{}"):
        headers = Headers({} if count is None else {RETRY_COUNT: count})
        return RetriableRequest(caller, "POST /v1/batches", headers, body)

    return request_of


def test_a_retry_has_the_key_of_its_original(redis_client, request_of):
    key = implicit_key(redis_client, request_of("0"))

    assert key is not None
    assert implicit_key(redis_client, request_of("1")) == key
    # No client can send it
    assert not KEY.fullmatch(key)


@pytest.mark.parametrize("changes", [{"body": b"{ }"}, {"route": "POST /v1/files"}, {"caller": None}])
def test_a_request_with_other_content_route_or_caller_is_no_retry(redis_client, request_of, changes):
    implicit_key(redis_client, request_of("0"))
    if "caller" in changes:
        changes = {"caller": Caller(new_id("user"), new_id("acct"), Role.MEMBER)}

    assert implicit_key(redis_client, replace(request_of("1"), **changes)) is None


def test_a_request_without_a_number_has_no_key(redis_client, request_of):
    assert implicit_key(redis_client, request_of(None)) is None


def test_a_request_is_run_without_a_key_while_redis_is_away(request_of, caplog):
    away = redis.Redis("127.0.0.1", 1, socket_connect_timeout=1)

    assert implicit_key(away, request_of("0")) is None
    assert "would not be recognised" in caplog.text
