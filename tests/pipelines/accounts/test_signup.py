"""Given users with the same or different addresses, then each can log in, and no response reveals a known address."""

import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from argon2 import PasswordHasher

from models.accounts import accounts, emails
from models.accounts.accounts import Role
from models.platform.database import fetch_all
from models.platform.errors import InvalidRequest, LimitExceeded, NotAllowed, NotAuthenticated
from models.platform.ids import new_id
from pipelines.accounts import passwords, signup
from pipelines.accounts.passwords import hash_password
from pipelines.accounts.signup import log_in, normalize_email, sign_up

PASSWORD = "correct horse"
OTHER = "another horse"


@pytest.fixture
def sign_up_as(database, tokens, login_limiter, origin):
    """`sign_up_as(email, password)` → the session of a signup."""

    def sign_up_as(email, password=PASSWORD):
        return sign_up(database, tokens, login_limiter, email=email, password=password, origin=origin)

    return sign_up_as


@pytest.fixture
def log_in_as(database, tokens, login_limiter, origin):
    """`log_in_as(email, password)` → the session of a login."""

    def log_in_as(email, password=PASSWORD, **options):
        return log_in(database, tokens, login_limiter, email=email, password=password, origin=origin, **options)

    return log_in_as


@pytest.fixture
def verify(database):
    """`verify(session)` verifies the address of a session's user."""

    def verify(session_tokens):
        with database.transaction() as connection:
            assert emails.verify(connection, session_tokens.caller.user_id, session_tokens.email)

    return verify


def user_ids(database, address):
    with database.connection() as connection:
        return [row["id"] for row in fetch_all(connection, "SELECT id FROM users WHERE email = %s", (address,))]


def emails_to(database, *ids):
    statement = """
        SELECT account_id, arguments FROM jobs
        WHERE kind = 'email.send' AND arguments->>'user_id' = ANY(%s) ORDER BY created_at, id"""
    with database.connection() as connection:
        rows = fetch_all(connection, statement, (list(ids),))
    assert {row["account_id"] for row in rows} <= {"platform"}, "members see the jobs of their account"
    return [(row["arguments"]["letter"], row["arguments"]["user_id"]) for row in rows]


def test_a_new_user_owns_a_new_account(database, sign_up_as, tokens, address):
    session_tokens = sign_up_as(address)

    assert session_tokens.caller.role is Role.OWNER
    assert tokens.verify(session_tokens.access_token) == session_tokens.caller
    with database.connection() as connection:
        (membership,) = accounts.memberships(connection, session_tokens.caller.user_id)
        user = accounts.find(connection, session_tokens.caller.user_id)
    assert membership.account_id == session_tokens.caller.account_id
    assert user.password_hash.startswith("$argon2id$")


def test_a_repeated_signup_is_a_login(database, sign_up_as, address):
    first = sign_up_as(address)

    second = sign_up_as(address.upper().replace("EXAMPLE.COM", "example.com"))

    assert (second.caller.user_id, second.caller.account_id) == (first.caller.user_id, first.caller.account_id)
    assert second.caller.session_id != first.caller.session_id
    assert user_ids(database, address) == [first.caller.user_id]


def test_of_concurrent_signups_one_creates_the_user(database, sign_up_as, address):
    with ThreadPoolExecutor(4) as pool:
        sessions = list(pool.map(lambda _: sign_up_as(address), range(4)))

    assert {session_tokens.caller.user_id for session_tokens in sessions} == set(user_ids(database, address))
    assert len(user_ids(database, address)) == 1


def test_a_login_starts_another_session_of_the_same_user(sign_up_as, log_in_as, address):
    session_tokens = sign_up_as(address)

    second = log_in_as(address.title())

    assert (second.caller.user_id, second.caller.account_id) == (
        session_tokens.caller.user_id,
        session_tokens.caller.account_id,
    )
    assert second.caller.session_id != session_tokens.caller.session_id


def test_a_signup_with_a_verified_address_succeeds_and_notifies_its_owner(
    database, sign_up_as, log_in_as, verify, address
):
    owner = sign_up_as(address)
    verify(owner)

    other = sign_up_as(address, OTHER)

    assert other.caller.user_id != owner.caller.user_id
    assert other.caller.account_id != owner.caller.account_id
    assert log_in_as(address).caller.user_id == owner.caller.user_id
    assert log_in_as(address, OTHER).caller.user_id == other.caller.user_id
    assert emails_to(database, owner.caller.user_id, other.caller.user_id) == [
        ("verify_address", owner.caller.user_id),
        ("signup_attempted", owner.caller.user_id),
    ]


def test_without_a_verified_owner_the_first_and_the_last_user_can_log_in(sign_up_as, log_in_as, address):
    first, between, last = (sign_up_as(address, password) for password in (PASSWORD, "between horse", OTHER))

    assert log_in_as(address).caller.user_id == first.caller.user_id
    assert log_in_as(address, OTHER).caller.user_id == last.caller.user_id
    with pytest.raises(NotAuthenticated):
        log_in_as(address, "between horse")
    assert between.refresh_token  # the session continues


def test_other_users_of_an_address_cannot_log_in_once_it_is_verified(sign_up_as, log_in_as, verify, address):
    early, owner = sign_up_as(address, OTHER), sign_up_as(address)

    verify(owner)

    assert log_in_as(address).caller.user_id == owner.caller.user_id
    with pytest.raises(NotAuthenticated):
        log_in_as(address, OTHER)
    assert sign_up_as(address, OTHER).caller.user_id != early.caller.user_id


@pytest.mark.parametrize("known", ["nobody", "unverified", "many unverified", "owner", "owner and unverified"])
def test_known_and_unknown_addresses_cost_the_same_hashes(sign_up_as, log_in_as, verify, address, monkeypatch, known):
    if known != "nobody":
        owner = sign_up_as(address)
    if "many" in known:
        sign_up_as(address, OTHER)
        sign_up_as(address, "between horse")
    if "owner" in known:
        verify(owner)
    if known == "owner and unverified":
        sign_up_as(address, OTHER)
        sign_up_as(address, "between horse")
    calls = []
    hasher = passwords._hasher
    monkeypatch.setattr(passwords, "_hasher", RecordingHasher(hasher, calls))

    with pytest.raises(NotAuthenticated) as caught:
        log_in_as(address, "wrong horse")
    assert (caught.value.code, calls) == ("invalid_credentials", ["verify"] * 3)
    assert caught.value.message == "The e-mail address or the password is wrong."
    calls.clear()
    assert sign_up_as(address, "a newer horse").caller.role is Role.OWNER
    assert sorted(calls) == ["hash", "verify", "verify", "verify"]


def test_a_failed_login_is_recorded_without_the_password(
    database, sign_up_as, log_in_as, verify, address, audited, origin
):
    session_tokens = sign_up_as(address)

    with pytest.raises(NotAuthenticated):
        log_in_as(address, "a secret guess")

    assert audited(session_tokens.caller.user_id) == ["user.created", "session.created", "login.failed"]
    with database.connection() as connection:
        (row,) = fetch_all(
            connection,
            "SELECT * FROM audit_events WHERE action = 'login.failed' AND account_id = %s",
            (session_tokens.caller.account_id,),
        )
    assert (row["ip"], row["user_agent"]) == (origin.ip, "a browser")
    assert "guess" not in str(row)


@pytest.mark.parametrize(("local", "domain"), [("a", "bu\u0308cher.example"), ("a", "xn--bcher-kva.example")])
def test_login_normalizes_the_address_like_signup(sign_up_as, log_in_as, local, domain):
    email = f"{new_id('test')}{local}@{domain}"
    user_id = sign_up_as(email).caller.user_id

    assert log_in_as(email).caller.user_id == user_id
    assert log_in_as(normalize_email(email)).caller.user_id == user_id


def test_a_user_of_an_earlier_version_logs_in_with_an_address_that_is_not_ascii(database, log_in_as):
    name = new_id("test")
    with database.connection() as connection:
        accounts.create(connection, email=f"{name}j\u00f6rg@example.com", password_hash=hash_password(PASSWORD))

    assert log_in_as(f"{name}jo\u0308rg@example.com").email == f"{name}j\u00f6rg@example.com"


def test_a_malformed_address_is_looked_up_unchanged(database, log_in_as):
    name = new_id("test")
    with database.connection() as connection:
        accounts.create(connection, email=name, password_hash=hash_password(PASSWORD))

    assert log_in_as(name).email == name


def test_a_login_chooses_among_the_users_own_accounts(sign_up_as, log_in_as, address):
    session_tokens, other = sign_up_as(address), sign_up_as(f"other-{address}")

    chosen = log_in_as(address, account_id=session_tokens.caller.account_id)
    assert chosen.caller.account_id == session_tokens.caller.account_id
    with pytest.raises(NotAllowed):
        log_in_as(address, account_id=other.caller.account_id)


def test_a_hash_with_old_parameters_is_replaced_at_login(database, sign_up_as, log_in_as, address):
    user_id = sign_up_as(address).caller.user_id
    old = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(PASSWORD)
    with database.connection() as connection:
        accounts.set_password(connection, user_id, old)

    log_in_as(address)

    with database.connection() as connection:
        replaced = accounts.find(connection, user_id).password_hash
    assert replaced != old
    assert not passwords.needs_rehash(replaced)


def test_a_password_change_during_a_login_rejects_it(database, sign_up_as, log_in_as, address, monkeypatch):
    session_tokens = sign_up_as(address)
    checked, changed = threading.Event(), threading.Event()

    def slow(stored):
        checked.set()
        assert changed.wait(10)
        return False

    monkeypatch.setattr(signup.passwords, "needs_rehash", slow)
    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(partial(log_in_as, address))
        assert checked.wait(10)
        with database.connection() as connection:
            accounts.set_password(connection, session_tokens.caller.user_id, hash_password(OTHER))
        changed.set()
        with pytest.raises(Exception, match="changed during the login"):
            late.result()


def test_signups_count_as_login_attempts(sign_up_as, log_in_as, address):
    sign_up_as(address)
    for number in range(9):
        sign_up_as(address, f"guess number {number}")

    with pytest.raises(LimitExceeded):
        sign_up_as(address, "guess number ten")
    with pytest.raises(LimitExceeded):
        log_in_as(address, "guess number ten")


@pytest.mark.parametrize("email", ["a@example.com", "a@x.test", "a@box.local", "a@intranet"])
def test_a_valid_address_is_accepted(email):
    assert normalize_email(email) == email


@pytest.mark.parametrize(
    "email",
    ["", "a", "@example.com", "a@", "a b@example.com", "a@exa mple.com", "a@b@c.com", "a\n@b.com", "a@b.com\r\nx: y"],
)
def test_a_malformed_address_is_rejected(email):
    with pytest.raises(InvalidRequest) as caught:
        normalize_email(email)
    assert caught.value.param == "email"


class RecordingHasher:
    """A hasher that records its calls."""

    def __init__(self, hasher, calls):
        self.hasher, self.calls = hasher, calls

    def verify(self, stored, password):
        self.calls.append("verify")
        return self.hasher.verify(stored, password)

    def hash(self, password):
        self.calls.append("hash")
        return self.hasher.hash(password)

    def check_needs_rehash(self, stored):
        return self.hasher.check_needs_rehash(stored)
