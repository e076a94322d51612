"""Given a session, when its tokens are refreshed, reused and revoked, then a stolen token ends it."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from models.access import auth_context
from models.accounts import accounts
from models.accounts.accounts import Role
from models.platform.errors import InvalidRequest, LimitExceeded, NotAllowed, NotAuthenticated
from pipelines.accounts import sessions
from pipelines.accounts.signup import log_in, sign_up

PASSWORD = "correct horse"


@pytest.fixture
def log_in_again(database, tokens, login_limiter, origin, address):
    """`log_in_again()` logs in the test's user."""
    sign_up(database, tokens, login_limiter, email=address, password=PASSWORD, origin=origin)

    def log_in_again(password=PASSWORD):
        return log_in(database, tokens, login_limiter, email=address, password=password, origin=origin)

    return log_in_again


@pytest.fixture
def refresh(database, tokens, origin):
    """`refresh(token)` → the next pair of tokens."""

    def refresh(token, account_id=None):
        return sessions.refresh(database, tokens, token, account_id=account_id, origin=origin)

    return refresh


@pytest.fixture
def is_active(database):
    """`is_active(session_tokens)`: whether the session is active."""

    def is_active(session_tokens):
        caller = session_tokens.caller
        names = {"session_id": caller.session_id, "user_id": caller.user_id, "account_id": caller.account_id}
        with database.connection() as connection:
            return auth_context.for_session(connection, **names) is not None

    return is_active


def is_refused(refresh, token):
    with pytest.raises(NotAuthenticated) as caught:
        refresh(token)
    return caught.value.code == "invalid_refresh_token"


def test_a_refresh_returns_the_next_pair_of_the_same_session(database, log_in_again, refresh):
    first = log_in_again()
    second = refresh(first.refresh_token)
    third = refresh(second.refresh_token)

    assert first.caller == second.caller == third.caller
    assert len({first.refresh_token, second.refresh_token, third.refresh_token}) == 3
    with database.connection() as connection:
        stored = connection.execute("SELECT hash FROM refresh_tokens").fetchall()
    assert all(pair.refresh_token.encode() not in row["hash"] for pair in (first, second) for row in stored)


@pytest.fixture
def let_grace_pass(database):
    """`let_grace_pass(session_tokens)`: the used tokens of the session were used eleven seconds ago."""

    def let_grace_pass(session_tokens):
        statement = "UPDATE refresh_tokens SET used_at = used_at - interval '11 seconds' WHERE session_id = %s"
        with database.connection() as connection:
            connection.execute(statement, (session_tokens.caller.session_id,))

    return let_grace_pass


def test_a_repeated_refresh_of_the_same_client_gets_the_same_next_token(log_in_again, refresh, is_active):
    session_tokens = log_in_again()

    first, again = refresh(session_tokens.refresh_token), refresh(session_tokens.refresh_token)

    assert first.refresh_token == again.refresh_token != session_tokens.refresh_token
    assert is_active(again)
    assert refresh(first.refresh_token)


def test_a_repeat_is_rejected_once_the_next_token_was_used_and_the_session_continues(log_in_again, refresh):
    session_tokens = log_in_again()
    latest = refresh(refresh(session_tokens.refresh_token).refresh_token)

    assert is_refused(refresh, session_tokens.refresh_token)

    assert refresh(latest.refresh_token)


@pytest.mark.parametrize("change", [{"ip": "203.0.113.9"}, {"user_agent": "another browser"}])
def test_a_repeat_of_another_client_is_rejected_and_the_session_continues(
    database, tokens, origin, log_in_again, refresh, change
):
    session_tokens = log_in_again()
    latest = refresh(session_tokens.refresh_token)

    with pytest.raises(NotAuthenticated):
        sessions.refresh(
            database, tokens, session_tokens.refresh_token, account_id=None, origin=replace(origin, **change)
        )

    assert refresh(latest.refresh_token)


def test_a_token_that_is_reused_after_some_seconds_ends_its_session_and_no_other(
    log_in_again, refresh, is_active, audited, let_grace_pass
):
    stolen, other = log_in_again(), log_in_again()
    latest = refresh(refresh(stolen.refresh_token).refresh_token)
    let_grace_pass(stolen)

    assert is_refused(refresh, stolen.refresh_token)

    assert not is_active(latest)
    assert is_refused(refresh, latest.refresh_token)
    assert is_active(other)
    assert refresh(other.refresh_token)
    assert audited(stolen.caller.user_id).count("refresh.reused") == 1


def test_two_concurrent_refreshes_get_the_same_next_token(log_in_again, refresh, is_active, monkeypatch):
    session_tokens = log_in_again()
    both = threading.Barrier(2, timeout=10)
    read = sessions.sessions.read_token

    def read_together(connection, secret):
        refresh_token = read(connection, secret)
        if secret == session_tokens.refresh_token and not refresh_token.used:
            both.wait()
        return refresh_token

    monkeypatch.setattr(sessions.sessions, "read_token", read_together)

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: refresh(session_tokens.refresh_token), range(2))

    assert first.refresh_token == second.refresh_token
    assert is_active(first)
    monkeypatch.undo()
    assert refresh(first.refresh_token)


@pytest.mark.parametrize("token", ["", "rt_", "rt_unknown", "sk-x", "x" * 200, "\udcff"])
def test_an_unknown_or_malformed_token_is_rejected(refresh, token):
    assert is_refused(refresh, token)


def test_a_refresh_keeps_the_account_or_changes_to_another_one(database, log_in_again, refresh):
    session_tokens, other = log_in_again(), None
    with database.connection() as connection:
        other = accounts.create(connection, email="somebody@example.com", password_hash=None).account_id
        connection.execute(
            "INSERT INTO memberships (account_id, user_id, role) VALUES (%s, %s, 'member')",
            (other, session_tokens.caller.user_id),
        )

    moved = refresh(session_tokens.refresh_token, other)
    stayed = refresh(moved.refresh_token)

    assert (moved.caller.account_id, moved.caller.role) == (other, Role.MEMBER)
    assert stayed.caller.account_id == other
    with database.connection() as connection:
        connection.execute("DELETE FROM memberships WHERE account_id = %s", (other,))
    assert refresh(stayed.refresh_token).caller.account_id == session_tokens.caller.account_id


def test_an_account_of_others_is_rejected_and_the_token_stays_valid(log_in_again, refresh):
    session_tokens = log_in_again()

    with pytest.raises(NotAllowed):
        refresh(session_tokens.refresh_token, "acct_of_others")

    assert refresh(session_tokens.refresh_token)


def test_logout_ends_one_session_and_logout_everywhere_ends_all(
    database, log_in_again, refresh, is_active, origin, audited
):
    here, there, elsewhere = log_in_again(), log_in_again(), log_in_again()

    assert sessions.log_out(database, here.caller, here.caller.session_id, origin)
    assert not sessions.log_out(database, here.caller, here.caller.session_id, origin)
    assert [is_active(session_tokens) for session_tokens in (here, there, elsewhere)] == [False, True, True]
    assert is_refused(refresh, here.refresh_token)

    assert sessions.log_out_everywhere(database, there.caller, origin) == 3  # the signup's, too
    assert [is_active(session_tokens) for session_tokens in (there, elsewhere)] == [False, False]
    assert audited(here.caller.user_id).count("session.revoked") == 2


def test_a_user_cannot_end_sessions_of_others(database, tokens, login_limiter, log_in_again, is_active, origin):
    session_tokens = log_in_again()
    stranger = sign_up(database, tokens, login_limiter, email="stranger@example.com", password=PASSWORD, origin=origin)

    assert not sessions.log_out(database, stranger.caller, session_tokens.caller.session_id, origin)
    assert is_active(session_tokens)


def test_an_expired_session_is_not_refreshed(database, log_in_again, refresh, is_active):
    session_tokens = log_in_again()
    with database.connection() as connection:
        connection.execute("UPDATE sessions SET expires_at = now() WHERE id = %s", (session_tokens.caller.session_id,))

    assert not is_active(session_tokens)
    assert is_refused(refresh, session_tokens.refresh_token)


def test_a_changed_password_ends_all_other_sessions(database, log_in_again, login_limiter, is_active, origin, audited):
    here, there = log_in_again(), log_in_again()

    ended = sessions.change_password(
        database, login_limiter, here.caller, current=PASSWORD, new="a newer horse", origin=origin
    )

    assert ended == 2  # the signup's, too
    assert [is_active(here), is_active(there)] == [True, False]
    assert log_in_again("a newer horse")
    with pytest.raises(NotAuthenticated):
        log_in_again(PASSWORD)
    assert "password.changed" in audited(here.caller.user_id)


def test_a_password_change_requires_the_current_password_and_a_strong_new_one(
    database, log_in_again, login_limiter, origin, address
):
    caller = log_in_again().caller

    for new in ("short", "password123", address):
        with pytest.raises(InvalidRequest) as error:
            sessions.change_password(database, login_limiter, caller, current=PASSWORD, new=new, origin=origin)
        assert error.value.param == "new_password"
    for _ in range(10):
        with pytest.raises(NotAllowed) as wrong:
            sessions.change_password(
                database, login_limiter, caller, current="wrong", new="a newer horse", origin=origin
            )
        assert wrong.value.param == "current_password"
    with pytest.raises(LimitExceeded):
        sessions.change_password(database, login_limiter, caller, current=PASSWORD, new="a newer horse", origin=origin)


def test_ended_sessions_and_used_tokens_are_pruned_after_a_month(database, log_in_again, refresh, is_active):
    revoked, active = log_in_again(), log_in_again()
    latest = refresh(active.refresh_token)
    with database.connection() as connection:
        connection.execute(
            "UPDATE sessions SET revoked_at = now() - interval '31 days' WHERE id = %s", (revoked.caller.session_id,)
        )
        connection.execute("UPDATE refresh_tokens SET used_at = now() - interval '31 days' WHERE used_at IS NOT NULL")

        sessions.sessions.prune(connection, 500)

        remaining = connection.execute(
            "SELECT session_id FROM refresh_tokens WHERE session_id = ANY(%s)",
            ([revoked.caller.session_id, active.caller.session_id],),
        ).fetchall()
    assert [row["session_id"] for row in remaining] == [active.caller.session_id]
    assert is_active(latest)
