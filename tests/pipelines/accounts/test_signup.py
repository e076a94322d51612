"""Given a database, when people sign up and log in, then each comes in, and nobody learns whose address is known."""

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
def join(database, tokens, login_limiter, origin):
    """`join(email, password)` signs up."""

    def join(email, password=PASSWORD):
        return sign_up(database, tokens, login_limiter, email=email, password=password, origin=origin)

    return join


@pytest.fixture
def enter(database, tokens, login_limiter, origin):
    """`enter(email, password)` logs in."""

    def enter(email, password=PASSWORD, **options):
        return log_in(database, tokens, login_limiter, email=email, password=password, origin=origin, **options)

    return enter


@pytest.fixture
def prove(database):
    """`prove(entry)`: the address is theirs."""

    def prove(entry):
        with database.transaction() as connection:
            assert emails.verify(connection, entry.caller.user_id, entry.email)

    return prove


def claimants(database, address):
    with database.connection() as connection:
        return [row["id"] for row in fetch_all(connection, "SELECT id FROM users WHERE email = %s", (address,))]


def letters_to(database, *user_ids):
    statement = """
        SELECT account_id, arguments FROM jobs
        WHERE kind = 'email.send' AND arguments->>'user_id' = ANY(%s) ORDER BY created_at, id"""
    with database.connection() as connection:
        found = fetch_all(connection, statement, (list(user_ids),))
    assert {row["account_id"] for row in found} <= {"platform"}, "a member would see whose address is known"
    return [(row["arguments"]["letter"], row["arguments"]["user_id"]) for row in found]


def test_a_new_user_owns_a_new_account(database, join, tokens, address):
    entry = join(address)

    assert entry.caller.role is Role.OWNER
    assert tokens.verify(entry.access_token) == entry.caller
    with database.connection() as connection:
        (membership,) = accounts.memberships(connection, entry.caller.user_id)
        user = accounts.find(connection, entry.caller.user_id)
    assert membership.account_id == entry.caller.account_id
    assert user.password_hash.startswith("$argon2id$")


def test_signing_up_again_is_logging_in(database, join, address):
    first = join(address)

    again = join(address.upper().replace("EXAMPLE.COM", "example.com"))

    assert (again.caller.user_id, again.caller.account_id) == (first.caller.user_id, first.caller.account_id)
    assert again.caller.session_id != first.caller.session_id
    assert claimants(database, address) == [first.caller.user_id]


def test_of_many_at_once_one_is_new_and_the_others_log_in(database, join, address):
    with ThreadPoolExecutor(4) as pool:
        entries = list(pool.map(lambda _: join(address), range(4)))

    assert {entry.caller.user_id for entry in entries} == set(claimants(database, address))
    assert len(claimants(database, address)) == 1


def test_login_gives_the_same_user_and_another_session(join, enter, address):
    entry = join(address)

    again = enter(address.title())

    assert (again.caller.user_id, again.caller.account_id) == (entry.caller.user_id, entry.caller.account_id)
    assert again.caller.session_id != entry.caller.session_id


def test_a_known_address_can_be_claimed_and_its_owner_hears_of_it(database, join, enter, prove, address):
    owner = join(address)
    prove(owner)

    claimant = join(address, OTHER)

    assert claimant.caller.user_id != owner.caller.user_id
    assert claimant.caller.account_id != owner.caller.account_id
    assert enter(address).caller.user_id == owner.caller.user_id
    assert enter(address, OTHER).caller.user_id == claimant.caller.user_id
    assert letters_to(database, owner.caller.user_id, claimant.caller.user_id) == [
        ("verify_address", owner.caller.user_id),
        ("signup_attempted", owner.caller.user_id),
    ]


def test_without_an_owner_the_first_and_the_last_claimant_come_in(join, enter, address):
    first, between, last = (join(address, password) for password in (PASSWORD, "between horse", OTHER))

    assert enter(address).caller.user_id == first.caller.user_id
    assert enter(address, OTHER).caller.user_id == last.caller.user_id
    with pytest.raises(NotAuthenticated):
        enter(address, "between horse")
    assert between.refresh_token  # the session goes on


def test_claims_end_when_somebody_proves_the_address(join, enter, prove, address):
    early, owner = join(address, OTHER), join(address)

    prove(owner)

    assert enter(address).caller.user_id == owner.caller.user_id
    with pytest.raises(NotAuthenticated):
        enter(address, OTHER)
    assert join(address, OTHER).caller.user_id != early.caller.user_id


@pytest.mark.parametrize("known", ["nobody", "a claimant", "many claimants", "an owner", "an owner and claimants"])
def test_known_and_unknown_addresses_cost_alike(join, enter, prove, address, monkeypatch, known):
    if known != "nobody":
        owner = join(address)
    if "many" in known:
        join(address, OTHER)
        join(address, "between horse")
    if "owner" in known:
        prove(owner)
    if known == "an owner and claimants":
        join(address, OTHER)
        join(address, "between horse")
    costs = []
    hasher = passwords._hasher
    monkeypatch.setattr(passwords, "_hasher", Counter(hasher, costs))

    with pytest.raises(NotAuthenticated) as caught:
        enter(address, "wrong horse")
    assert (caught.value.code, costs) == ("invalid_credentials", ["verify"] * 3)
    assert caught.value.message == "The e-mail address or the password is wrong."
    costs.clear()
    assert join(address, "a newer horse").caller.role is Role.OWNER
    assert sorted(costs) == ["hash", "verify", "verify", "verify"]


def test_a_failed_login_is_told_in_the_owners_log_without_the_password(
    database, join, enter, prove, address, audited, origin
):
    entry = join(address)

    with pytest.raises(NotAuthenticated):
        enter(address, "a secret guess")

    assert audited(entry.caller.user_id) == ["user.created", "session.created", "login.failed"]
    with database.connection() as connection:
        (row,) = fetch_all(
            connection,
            "SELECT * FROM audit_events WHERE action = 'login.failed' AND account_id = %s",
            (entry.caller.account_id,),
        )
    assert (row["ip"], row["user_agent"]) == (origin.ip, "a browser")
    assert "guess" not in str(row)


@pytest.mark.parametrize(
    ("local", "domain"), [("jo\u0308rg", "example.com"), ("a", "bu\u0308cher.example"), ("a", "xn--bcher-kva.example")]
)
def test_login_takes_the_address_in_the_form_that_signup_took(join, enter, local, domain):
    email = f"{new_id('test')}{local}@{domain}"
    user_id = join(email).caller.user_id

    assert enter(email).caller.user_id == user_id
    assert enter(normalize_email(email)).caller.user_id == user_id


def test_what_is_no_address_is_looked_up_as_it_is(database, enter):
    name = new_id("test")
    with database.connection() as connection:
        accounts.create(connection, email=name, password_hash=hash_password(PASSWORD))

    assert enter(name).email == name


def test_a_user_chooses_among_their_own_accounts(join, enter, address):
    entry, other = join(address), join(f"other-{address}")

    chosen = enter(address, account_id=entry.caller.account_id)
    assert chosen.caller.account_id == entry.caller.account_id
    with pytest.raises(NotAllowed):
        enter(address, account_id=other.caller.account_id)


def test_an_old_hash_is_renewed_at_login(database, join, enter, address):
    user_id = join(address).caller.user_id
    old = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(PASSWORD)
    with database.connection() as connection:
        accounts.set_password(connection, user_id, old)

    enter(address)

    with database.connection() as connection:
        renewed = accounts.find(connection, user_id).password_hash
    assert renewed != old
    assert not passwords.needs_rehash(renewed)


def test_a_password_that_changes_meanwhile_lets_nobody_in(database, join, enter, address, monkeypatch):
    entry = join(address)
    checked, changed = threading.Event(), threading.Event()

    def slow(stored):
        checked.set()
        assert changed.wait(10)
        return False

    monkeypatch.setattr(signup.passwords, "needs_rehash", slow)
    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(partial(enter, address))
        assert checked.wait(10)
        with database.connection() as connection:
            accounts.set_password(connection, entry.caller.user_id, hash_password(OTHER))
        changed.set()
        with pytest.raises(Exception, match="changed at this moment"):
            late.result()


def test_guesses_by_signing_up_count_as_well(join, enter, address):
    join(address)
    for number in range(9):
        join(address, f"guess number {number}")

    with pytest.raises(LimitExceeded):
        join(address, "guess number ten")
    with pytest.raises(LimitExceeded):
        enter(address, "guess number ten")


@pytest.mark.parametrize("email", ["a@example.com", "a@x.test", "a@box.local", "a@intranet", "ä@example.com"])
def test_addresses_that_pass(email):
    assert normalize_email(email) == email


@pytest.mark.parametrize(
    "email",
    ["", "a", "@example.com", "a@", "a b@example.com", "a@exa mple.com", "a@b@c.com", "a\n@b.com", "a@b.com\r\nx: y"],
)
def test_addresses_that_do_not(email):
    with pytest.raises(InvalidRequest) as caught:
        normalize_email(email)
    assert caught.value.param == "email"


class Counter:
    """A hasher that notes what it was asked for."""

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
