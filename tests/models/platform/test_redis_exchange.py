"""Execute commands in one round trip, also after errors and lost connections."""

import pytest
import redis

from models.platform.redis_client import connect
from models.platform.redis_cluster import run_script
from models.platform.redis_exchange import exchange

SCRIPT = "return {KEYS[1], ARGV[1]}"


@pytest.fixture
def client(valkey):
    with connect(valkey.url) as client:
        yield client


def test_replies_and_errors_are_in_the_order_of_the_commands(client):
    replies = exchange(client, [["ECHO", "a"], ["GET"], ["ECHO", b"b"]])

    assert isinstance(replies[1], redis.ResponseError)
    assert replies[::2] == [b"a", b"b"]


def test_commands_are_sent_again_on_a_new_connection_after_a_lost_one(client, redis_client):
    (number,) = exchange(client, [["CLIENT", "ID"]])
    redis_client.client_kill_filter(_id=str(number))

    (again,) = exchange(client, [["CLIENT", "ID"]])

    assert again != number


def test_no_reply_of_a_timed_out_exchange_is_left_for_the_next(valkey):
    with connect(valkey.url, timeout=0.1) as client:
        with pytest.raises(redis.TimeoutError):
            exchange(client, [["BLPOP", "an empty list", "1"], ["ECHO", "late"]])

        assert exchange(client, [["ECHO", "next"]]) == [b"next"]


def test_a_script_that_the_server_lacks_is_run_by_its_text(client):
    assert run_script(client, "0" * 40, SCRIPT, [1, "key", "argument"]) == [b"key", b"argument"]


def test_the_error_of_a_script_is_raised(client):
    with pytest.raises(redis.ResponseError, match="Unknown command"):
        run_script(client, "0" * 40, "return redis.call('NONE')", [0])
