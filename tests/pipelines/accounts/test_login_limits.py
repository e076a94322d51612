"""Given repeated password attempts, then guessing is slow, and the owner of the address can still log in."""

import secrets
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from models.access.rate_limits import Rate
from models.platform.errors import LimitExceeded, Unavailable
from pipelines.accounts import login_limits as module
from pipelines.accounts.login_limits import CountedAttempt, LoginAttempt, LoginLimiter

BURST = module.PAIR.limit


@pytest.fixture
def network():
    """The prefix of an IPv6 network that no other test uses."""
    return f"2001:{secrets.randbelow(65536):x}:{secrets.randbelow(65536):x}"


def wait(login_limiter, attempt, *user_ids):
    """Make an attempt; returns the seconds to wait, or 0 when it was admitted."""
    try:
        login_limiter.count_attempt(attempt, user_ids)
    except LimitExceeded as refusal:
        return refusal.retry_after
    return 0


def attack(login_limiter, address):
    """Guess from so many networks that the address is under attack."""
    ips = [f"2a00:{secrets.randbelow(65536):x}:{number:x}::1" for number in range(module.ADDRESS.limit)]
    assert not any(wait(login_limiter, LoginAttempt(address, ip)) for ip in ips)


def test_one_network_has_a_burst_of_attempts_and_then_one_every_few_seconds(login_limiter, address, network):
    guesser = LoginAttempt(address, f"{network}::1")

    assert [wait(login_limiter, guesser) for _ in range(BURST)] == [0] * BURST
    assert 0 < wait(login_limiter, guesser) <= module.PAIR.period / module.PAIR.limit
    assert wait(login_limiter, LoginAttempt(f"other-{address}", f"{network}::1")) == 0


def test_addresses_of_one_ipv6_subnet_share_a_bucket(login_limiter, address, network):
    tries = [wait(login_limiter, LoginAttempt(address, f"{network}::{number:x}")) for number in range(BURST + 1)]

    assert tries[:BURST] == [0] * BURST
    assert tries[BURST] > 0


def test_concurrent_attempts_are_counted_one_by_one(login_limiter, address, network):
    with ThreadPoolExecutor(8) as pool:
        waits = list(pool.map(lambda _: wait(login_limiter, LoginAttempt(address, f"{network}::1")), range(100)))

    assert waits.count(0) == BURST


def test_a_right_password_returns_its_own_attempt_and_no_guesses(login_limiter, address, network):
    attempt = LoginAttempt(address, f"{network}::1")
    for _ in range(BURST - 1):
        login_limiter.count_attempt(attempt)

    for _ in range(5):
        login_limiter.record_success(login_limiter.count_attempt(attempt, ["user_me"]), "user_me")

    assert wait(login_limiter, attempt) == 0
    assert wait(login_limiter, attempt) > 0


def test_logins_of_a_stranger_with_the_same_address_give_them_no_further_guesses(login_limiter, address, network):
    # Given a stranger who signed up with the address and logs in with their own password after each guess
    attempt, users = LoginAttempt(address, f"{network}::1"), ["user_owner", "user_stranger"]
    guesses = 0
    for _ in range(4 * BURST):
        try:
            counted = login_limiter.count_attempt(attempt, users)
            guesses += counted.admits("user_owner")
            login_limiter.record_success(login_limiter.count_attempt(attempt, users), "user_stranger")
        except LimitExceeded:
            pass
    # Then the password of the owner was guessed no more often than without these logins
    assert guesses <= BURST


def test_a_network_under_attack_admits_the_first_attempt_of_a_neighbour(login_limiter, address, monkeypatch, network):
    monkeypatch.setattr(module, "NETWORK", Rate(5, 5))
    for number in range(20):
        wait(login_limiter, LoginAttempt(f"{number}-{address}", f"{network}:{number:x}::1"))

    neighbour = LoginAttempt(address, f"{network}:ffff::1")
    assert wait(login_limiter, neighbour) == 0
    assert wait(login_limiter, neighbour) > 0


def test_attempts_for_another_purpose_do_not_delay_logins(login_limiter, address, network):
    forgotten = LoginAttempt(address, f"{network}::1", purpose="forgot")
    for _ in range(3 * BURST):
        wait(login_limiter, forgotten)

    assert wait(login_limiter, forgotten) > 0
    assert wait(login_limiter, LoginAttempt(address, f"{network}::1")) == 0


def test_under_attack_an_unknown_network_has_one_attempt_per_minute(login_limiter, address, network):
    attack(login_limiter, address)

    owner = LoginAttempt(address, f"{network}::1")
    assert wait(login_limiter, owner) == 0
    assert 0 < wait(login_limiter, owner) <= module.PAIR_UNDER_ATTACK.period


def test_an_attack_does_not_affect_a_network_that_has_logged_in_before(login_limiter, address, network):
    owner = LoginAttempt(address, f"{network}::1")
    login_limiter.record_success(login_limiter.count_attempt(owner, ["user_me"]), "user_me")
    attack(login_limiter, address)

    assert [wait(login_limiter, owner, "user_me") for _ in range(BURST)] == [0] * BURST
    assert wait(login_limiter, LoginAttempt(address, f"{network}:1::1"), "user_me") == 0
    assert wait(login_limiter, LoginAttempt(address, f"{network}:1::1"), "user_me") > 0


def test_the_bucket_of_an_address_is_full_again_within_its_period_after_an_attack(login_limiter, address, redis_client):
    attack(login_limiter, address)
    attack(login_limiter, f"more-{address}")
    key = LoginAttempt(address, "").address.key

    assert 0 < redis_client.pttl(key) <= module.ADDRESS.period * 1000


def test_a_network_is_limited_over_all_addresses_and_more_so_in_an_attack(login_limiter, address, monkeypatch, network):
    monkeypatch.setattr(module, "NETWORK", Rate(5, 5))
    tries = [
        wait(login_limiter, LoginAttempt(f"{number}-{address}", f"{network}::1"))
        for number in range(module.PLACE.limit + 1)
    ]

    assert sum(each == 0 for each in tries) <= 5 + module.PLACE_UNDER_ATTACK.limit + 10
    assert tries[-1] > 0


def test_the_email_address_is_not_stored_in_redis(login_limiter, address, network, redis_client):
    attempt = LoginAttempt(address, f"{network}::1")
    login_limiter.record_success(login_limiter.count_attempt(attempt), "user_me")

    keys = list(redis_client.scan_iter("*login*"))
    assert attempt.known_key("user_me").encode() in keys
    assert not [key for key in keys if address.encode() in key]


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
def test_a_network_is_an_ipv4_address_or_an_ipv6_subnet(one, other, same):
    assert (LoginAttempt("a", one).pair.key == LoginAttempt("a", other).pair.key) is same


def test_attempts_are_rejected_while_redis_is_full(address, monkeypatch):
    client = redis.Redis(unix_socket_path="/nowhere", protocol=2)

    def refuse(*arguments):
        raise redis.OutOfMemoryError("command not allowed when used memory > 'maxmemory'.")

    monkeypatch.setattr("models.access.rate_limits.draw", refuse)

    with pytest.raises(Unavailable):
        LoginLimiter(client).count_attempt(LoginAttempt(address, ""))


def test_attempts_are_rejected_while_redis_is_away(address):
    client = redis.Redis(unix_socket_path="/nowhere", retry=Retry(NoBackoff(), 0), protocol=2)
    login_limiter = LoginLimiter(client)

    with pytest.raises(Unavailable):
        login_limiter.count_attempt(LoginAttempt(address, ""))
    login_limiter.record_success(CountedAttempt(LoginAttempt(address, ""), None, ()), "user_me")
    client.close()
