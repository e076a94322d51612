"""Given somebody who guesses passwords, when they go on, then they must wait, and the owner of the address needn't."""

import secrets
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from models.platform.errors import LimitExceeded, Unavailable
from pipelines.accounts import login_limits as module
from pipelines.accounts.login_limits import LoginAttempt, LoginLimiter

BURST = module.PAIR[1]


@pytest.fixture
def network():
    """The beginning of the addresses of a network that no other test uses."""
    return f"2001:{secrets.randbelow(65536):x}:{secrets.randbelow(65536):x}"


def wait(login_limiter, attempt):
    """Seconds until the next try; 0 when it was made."""
    try:
        login_limiter.count_attempt(attempt)
    except LimitExceeded as refusal:
        return refusal.retry_after
    return 0


def attack(login_limiter, address):
    """Guess from so many places that the address is under attack."""
    places = [f"2a00:{secrets.randbelow(65536):x}:{number:x}::1" for number in range(module.ADDRESS[1])]
    assert not any(wait(login_limiter, LoginAttempt(address, place)) for place in places)


def test_one_place_gets_some_tries_and_then_one_every_few_seconds(login_limiter, address, network):
    guesser = LoginAttempt(address, f"{network}::1")

    assert [wait(login_limiter, guesser) for _ in range(BURST)] == [0] * BURST
    assert 0 < wait(login_limiter, guesser) <= module.PAIR[0] / 1000
    assert wait(login_limiter, LoginAttempt(f"other-{address}", f"{network}::1")) == 0


def test_the_next_address_in_the_same_subnet_is_the_same_place(login_limiter, address, network):
    tries = [wait(login_limiter, LoginAttempt(address, f"{network}::{number:x}")) for number in range(BURST + 1)]

    assert tries[:BURST] == [0] * BURST
    assert tries[BURST] > 0


def test_a_thousand_at_once_are_counted_one_by_one(login_limiter, address, network):
    with ThreadPoolExecutor(8) as pool:
        waits = list(pool.map(lambda _: wait(login_limiter, LoginAttempt(address, f"{network}::1")), range(100)))

    assert waits.count(0) == BURST


def test_a_right_password_owes_nothing(login_limiter, address, network):
    attempt = LoginAttempt(address, f"{network}::1")
    for _ in range(BURST):
        login_limiter.count_attempt(attempt)

    login_limiter.record_success(attempt)

    assert wait(login_limiter, attempt) == 0


def test_an_attack_from_everywhere_keeps_no_newcomer_out(login_limiter, address, network):
    attack(login_limiter, address)

    owner = LoginAttempt(address, f"{network}::1")
    assert wait(login_limiter, owner) == 0
    assert 0 < wait(login_limiter, owner) <= module.DEAR / 1000


def test_an_attack_is_not_felt_where_the_owner_has_been_before(login_limiter, address, network):
    owner = LoginAttempt(address, f"{network}::1")
    login_limiter.count_attempt(owner)
    login_limiter.record_success(owner)
    attack(login_limiter, address)

    assert [wait(login_limiter, owner) for _ in range(BURST)] == [0] * BURST
    assert wait(login_limiter, owner) > 0


def test_an_attack_does_not_outlast_itself(login_limiter, address, redis_client):
    attack(login_limiter, address)
    attack(login_limiter, f"more-{address}")
    *_, key = LoginAttempt(address, "").keys

    assert 0 < redis_client.pttl(key) <= module.ADDRESS[0] * module.ADDRESS[1]


def test_one_network_can_not_try_many_addresses_without_end(login_limiter, address, monkeypatch, network):
    monkeypatch.setattr(module, "NETWORK", (1000, 5))

    tries = [
        wait(login_limiter, LoginAttempt(f"{number}-{address}", f"{network}:{number:x}::1")) for number in range(6)
    ]

    assert tries[:5] == [0] * 5
    assert tries[5] > 0


def test_nothing_of_the_address_stands_in_redis(login_limiter, address, network, redis_client):
    attempt = LoginAttempt(address, f"{network}::1")
    login_limiter.count_attempt(attempt)
    login_limiter.record_success(attempt)

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
    login_limiter = LoginLimiter(client)

    with pytest.raises(Unavailable):
        login_limiter.count_attempt(LoginAttempt(address, ""))
    login_limiter.record_success(LoginAttempt(address, ""))
    client.close()
