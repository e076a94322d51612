"""Given somebody who has logged in, when tokens are refreshed, stolen and given back, then one login is one session."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from models.access import auth_context
from models.accounts import accounts
from models.accounts.accounts import Role
from models.platform.errors import InvalidRequest, LimitExceeded, NotAllowed, NotAuthenticated
from pipelines.accounts import sessions
from pipelines.accounts.signup import log_in, sign_up

PASSWORD = "correct horse"


@pytest.fixture
def enter(database, tokens, login_limiter, origin, address):
    """`enter()` logs the test's person in, who has signed up."""
    sign_up(database, tokens, login_limiter, email=address, password=PASSWORD, origin=origin)

    def enter(password=PASSWORD):
        return log_in(database, tokens, login_limiter, email=address, password=password, origin=origin)

    return enter


@pytest.fixture
def refresh(database, tokens, origin):
    """`refresh(token)` gives the next pair."""

    def refresh(token, account_id=None):
        return sessions.refresh(database, tokens, token, account_id=account_id, origin=origin)

    return refresh


@pytest.fixture
def lives(database):
    """`lives(entry)`: whether the gate takes the token."""

    def lives(entry):
        caller = entry.caller
        names = {"session_id": caller.session_id, "user_id": caller.user_id, "account_id": caller.account_id}
        with database.connection() as connection:
            return auth_context.for_session(connection, **names) is not None

    return lives


def refused(refresh, token):
    with pytest.raises(NotAuthenticated) as caught:
        refresh(token)
    return caught.value.code == "invalid_refresh_token"


def test_each_refresh_gives_the_next_pair_of_the_same_session(database, enter, refresh):
    first = enter()
    second = refresh(first.refresh_token)
    third = refresh(second.refresh_token)

    assert first.caller == second.caller == third.caller
    assert len({first.refresh_token, second.refresh_token, third.refresh_token}) == 3
    with database.connection() as connection:
        stored = connection.execute("SELECT hash FROM refresh_tokens").fetchall()
    assert all(entry.refresh_token.encode() not in row["hash"] for entry in (first, second) for row in stored)


def test_a_spent_token_ends_the_whole_session_and_no_other(enter, refresh, lives, audited):
    stolen, other = enter(), enter()
    latest = refresh(refresh(stolen.refresh_token).refresh_token)

    assert refused(refresh, stolen.refresh_token)

    assert not lives(latest)
    assert refused(refresh, latest.refresh_token)
    assert lives(other)
    assert refresh(other.refresh_token)
    assert audited(stolen.caller.user_id).count("refresh.reused") == 1


def test_of_two_at_once_one_wins_and_the_session_goes_on(enter, refresh, lives, monkeypatch):
    entry = enter()
    both = threading.Barrier(2, timeout=10)
    read = sessions.sessions.read_token

    def read_together(connection, secret):
        shown = read(connection, secret)
        both.wait()
        return shown

    monkeypatch.setattr(sessions.sessions, "read_token", read_together)

    def attempt(_):
        try:
            return refresh(entry.refresh_token)
        except NotAuthenticated:
            return None

    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(attempt, range(2)))

    (winner,) = [result for result in results if result]
    assert lives(winner)
    monkeypatch.undo()
    assert refresh(winner.refresh_token)


@pytest.mark.parametrize("token", ["", "rt_", "rt_unknown", "sk-x", "x" * 200, "\udcff"])
def test_nonsense_is_refused(refresh, token):
    assert refused(refresh, token)


def test_a_refresh_stays_in_the_account_or_goes_to_another_one(database, enter, refresh):
    entry, other = enter(), None
    with database.connection() as connection:
        other = accounts.create(connection, email="somebody@example.com", password_hash=None).account_id
        connection.execute(
            "INSERT INTO memberships (account_id, user_id, role) VALUES (%s, %s, 'member')",
            (other, entry.caller.user_id),
        )

    moved = refresh(entry.refresh_token, other)
    stayed = refresh(moved.refresh_token)

    assert (moved.caller.account_id, moved.caller.role) == (other, Role.MEMBER)
    assert stayed.caller.account_id == other
    with database.connection() as connection:
        connection.execute("DELETE FROM memberships WHERE account_id = %s", (other,))
    assert refresh(stayed.refresh_token).caller.account_id == entry.caller.account_id


def test_an_account_of_others_is_refused_and_costs_no_token(enter, refresh):
    entry = enter()

    with pytest.raises(NotAllowed):
        refresh(entry.refresh_token, "acct_of_others")

    assert refresh(entry.refresh_token)


def test_logging_out_ends_one_session_and_everywhere_all(database, enter, refresh, lives, origin, audited):
    here, there, elsewhere = enter(), enter(), enter()

    assert sessions.log_out(database, here.caller, here.caller.session_id, origin)
    assert not sessions.log_out(database, here.caller, here.caller.session_id, origin)
    assert [lives(entry) for entry in (here, there, elsewhere)] == [False, True, True]
    assert refused(refresh, here.refresh_token)

    assert sessions.log_out_everywhere(database, there.caller, origin) == 3  # the signup's, too
    assert [lives(entry) for entry in (there, elsewhere)] == [False, False]
    assert audited(here.caller.user_id).count("session.revoked") == 2


def test_nobody_ends_the_sessions_of_others(database, tokens, login_limiter, enter, lives, origin):
    entry = enter()
    stranger = sign_up(database, tokens, login_limiter, email="stranger@example.com", password=PASSWORD, origin=origin)

    assert not sessions.log_out(database, stranger.caller, entry.caller.session_id, origin)
    assert lives(entry)


def test_an_expired_session_is_not_refreshed(database, enter, refresh, lives):
    entry = enter()
    with database.connection() as connection:
        connection.execute("UPDATE sessions SET expires_at = now() WHERE id = %s", (entry.caller.session_id,))

    assert not lives(entry)
    assert refused(refresh, entry.refresh_token)


def test_a_changed_password_ends_all_other_sessions(database, enter, login_limiter, lives, origin, audited):
    here, there = enter(), enter()

    ended = sessions.change_password(
        database, login_limiter, here.caller, current=PASSWORD, new="a newer horse", origin=origin
    )

    assert ended == 2  # the signup's, too
    assert [lives(here), lives(there)] == [True, False]
    assert enter("a newer horse")
    with pytest.raises(NotAuthenticated):
        enter(PASSWORD)
    assert "password.changed" in audited(here.caller.user_id)


def test_changing_takes_the_current_password_and_a_good_new_one(database, enter, login_limiter, origin, address):
    caller = enter().caller

    for new in ("short", "password123", address):
        with pytest.raises(InvalidRequest) as refusal:
            sessions.change_password(database, login_limiter, caller, current=PASSWORD, new=new, origin=origin)
        assert refusal.value.param == "new_password"
    for _ in range(10):
        with pytest.raises(NotAllowed) as wrong:
            sessions.change_password(database, login_limiter, caller, current="wrong", new="a newer horse", origin=origin)
        assert wrong.value.param == "current_password"
    with pytest.raises(LimitExceeded):
        sessions.change_password(database, login_limiter, caller, current=PASSWORD, new="a newer horse", origin=origin)


def test_what_ended_long_ago_is_forgotten(database, enter, refresh, lives):
    gone, kept = enter(), enter()
    latest = refresh(kept.refresh_token)
    with database.connection() as connection:
        connection.execute(
            "UPDATE sessions SET revoked_at = now() - interval '31 days' WHERE id = %s", (gone.caller.session_id,)
        )
        connection.execute("UPDATE refresh_tokens SET used_at = now() - interval '31 days' WHERE used_at IS NOT NULL")

        sessions.sessions.prune(connection, 500)

        left = connection.execute(
            "SELECT session_id FROM refresh_tokens WHERE session_id = ANY(%s)",
            ([gone.caller.session_id, kept.caller.session_id],),
        ).fetchall()
    assert [row["session_id"] for row in left] == [kept.caller.session_id]
    assert lives(latest)
