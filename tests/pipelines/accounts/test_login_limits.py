"""Given somebody who guesses passwords, when they go on, then they must wait, and the owner of the address needn't."""

import secrets
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from models.platform.errors import TooMany, Unavailable
from pipelines.accounts import login_limits as module
from pipelines.accounts.login_limits import LoginAttempt, LoginLimiter

BURST = module.PAIR[1]


@pytest.fixture
def network():
    """The beginning of the addresses of a network that no other test uses."""
    return f"2001:{secrets.randbelow(65536):x}:{secrets.randbelow(65536):x}"


def wait(throttle, attempt):
    """Seconds until the next try; 0 when it was made."""
    try:
        throttle.count(attempt)
    except TooMany as refusal:
        return refusal.retry_after
    return 0


def attack(throttle, address):
    """Guess from so many places that the address is under attack."""
    places = [f"2a00:{secrets.randbelow(65536):x}:{number:x}::1" for number in range(module.ADDRESS[1])]
    assert not any(wait(throttle, LoginAttempt(address, place)) for place in places)


def test_one_place_gets_some_tries_and_then_one_every_few_seconds(throttle, address, network):
    guesser = LoginAttempt(address, f"{network}::1")

    assert [wait(throttle, guesser) for _ in range(BURST)] == [0] * BURST
    assert 0 < wait(throttle, guesser) <= module.PAIR[0] / 1000
    assert wait(throttle, LoginAttempt(f"other-{address}", f"{network}::1")) == 0


def test_the_next_address_in_the_same_subnet_is_the_same_place(throttle, address, network):
    tries = [wait(throttle, LoginAttempt(address, f"{network}::{number:x}")) for number in range(BURST + 1)]

    assert tries[:BURST] == [0] * BURST
    assert tries[BURST] > 0


def test_a_thousand_at_once_are_counted_one_by_one(throttle, address, network):
    with ThreadPoolExecutor(8) as pool:
        waits = list(pool.map(lambda _: wait(throttle, LoginAttempt(address, f"{network}::1")), range(100)))

    assert waits.count(0) == BURST


def test_a_right_password_owes_nothing(throttle, address, network):
    attempt = LoginAttempt(address, f"{network}::1")
    for _ in range(BURST):
        throttle.count(attempt)

    throttle.forget(attempt)

    assert wait(throttle, attempt) == 0


def test_an_attack_from_everywhere_keeps_no_newcomer_out(throttle, address, network):
    attack(throttle, address)

    owner = LoginAttempt(address, f"{network}::1")
    assert wait(throttle, owner) == 0
    assert 0 < wait(throttle, owner) <= module.DEAR / 1000


def test_an_attack_is_not_felt_where_the_owner_has_been_before(throttle, address, network):
    owner = LoginAttempt(address, f"{network}::1")
    throttle.count(owner)
    throttle.forget(owner)
    attack(throttle, address)

    assert [wait(throttle, owner) for _ in range(BURST)] == [0] * BURST
    assert wait(throttle, owner) > 0


def test_an_attack_does_not_outlast_itself(throttle, address, redis_client):
    attack(throttle, address)
    attack(throttle, f"more-{address}")
    *_, key = LoginAttempt(address, "").keys

    assert 0 < redis_client.pttl(key) <= module.ADDRESS[0] * module.ADDRESS[1]


def test_one_network_can_not_try_many_addresses_without_end(throttle, address, monkeypatch, network):
    monkeypatch.setattr(module, "NETWORK", (1000, 5))

    tries = [wait(throttle, LoginAttempt(f"{number}-{address}", f"{network}:{number:x}::1")) for number in range(6)]

    assert tries[:5] == [0] * 5
    assert tries[5] > 0


def test_nothing_of_the_address_stands_in_redis(throttle, address, network, redis_client):
    attempt = LoginAttempt(address, f"{network}::1")
    throttle.count(attempt)
    throttle.forget(attempt)

    assert not [key for key in redis_client.scan_iter("login:*") if address.encode() in key]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("2001:db8::1", "2001:db8::ffff", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("", "", True),
        ("unix:", "", False),
    ],
)
def test_a_place_is_an_address_or_a_subnet_of_the_new_protocol(one, other, same):
    assert (LoginAttempt("a", one).keys[1] == LoginAttempt("a", other).keys[1]) is same


def test_without_redis_nobody_guesses(address):
    client = redis.Redis(unix_socket_path="/nowhere", retry=Retry(NoBackoff(), 0), protocol=2)
    throttle = LoginLimiter(client)

    with pytest.raises(Unavailable):
        throttle.count_attempt(LoginAttempt(address, ""))
    throttle.record_success(LoginAttempt(address, ""))
    client.close()
