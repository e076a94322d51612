"""Given a database, when people sign up and log in, then each has one account and one door into it."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from argon2 import PasswordHasher

from models import accounts
from models.accounts import Role
from models.errors import Conflict, InvalidRequest, NotAllowed, NotAuthenticated
from models.ids import new_id
from pipelines.accounts.passwords import hash_password
from pipelines.accounts.signup import log_in, normal_address, sign_up
from pipelines.accounts.tokens import Tokens

PASSWORD = "correct horse"


@pytest.fixture
def tokens():
    return Tokens(b"a secret of the tests, long enough")


@pytest.fixture
def address():
    return f"{new_id('test')}@example.com"


def test_a_new_user_owns_a_new_account(database, tokens, address):
    entry = sign_up(database, tokens, email=address, password=PASSWORD)

    assert entry.caller.role is Role.OWNER
    assert tokens.verify(entry.token) == entry.caller
    with database.connection() as connection:
        (membership,) = accounts.memberships(connection, entry.caller.user_id)
    assert membership.account_id == entry.caller.account_id


def test_the_password_is_stored_hashed(database, tokens, address):
    sign_up(database, tokens, email=address, password=PASSWORD)

    with database.connection() as connection:
        user = accounts.find_by_email(connection, address)
    assert user.password_hash.startswith("$argon2id$")


def test_an_address_is_taken_in_any_case(database, tokens, address):
    sign_up(database, tokens, email=address, password=PASSWORD)

    with pytest.raises(Conflict) as caught:
        sign_up(database, tokens, email=address.upper().replace("EXAMPLE.COM", "example.com"), password=PASSWORD)
    assert caught.value.code == "email_taken"


def test_of_many_at_once_one_wins_and_leaves_one_account(database, tokens, address):
    def attempt(_):
        try:
            return sign_up(database, tokens, email=address, password=PASSWORD)
        except Conflict:
            return None

    with ThreadPoolExecutor(4) as pool:
        entries = [entry for entry in pool.map(attempt, range(4)) if entry]

    assert len(entries) == 1
    with database.connection() as connection:
        found = connection.execute("SELECT count(*) AS n FROM accounts WHERE name = %s", (address,)).fetchone()
    assert found["n"] == 1


def test_login_gives_the_same_caller(database, tokens, address):
    entry = sign_up(database, tokens, email=address, password=PASSWORD)

    again = log_in(database, tokens, email=address.title(), password=PASSWORD)

    assert again.caller == entry.caller


@pytest.mark.parametrize(
    ("local", "domain"), [("jo\u0308rg", "example.com"), ("a", "bu\u0308cher.example"), ("a", "xn--bcher-kva.example")]
)
def test_login_takes_the_address_in_the_form_that_signup_took(database, tokens, local, domain):
    email = f"{new_id('test')}{local}@{domain}"
    entry = sign_up(database, tokens, email=email, password=PASSWORD)

    assert log_in(database, tokens, email=email, password=PASSWORD).caller == entry.caller
    assert log_in(database, tokens, email=normal_address(email), password=PASSWORD).caller == entry.caller


def test_what_is_no_address_is_looked_up_as_it_is(database, tokens):
    name = new_id("test")
    with database.connection() as connection:
        accounts.create(connection, email=name, password_hash=hash_password(PASSWORD))

    assert log_in(database, tokens, email=name, password=PASSWORD).email == name


@pytest.mark.parametrize("known", [True, False])
def test_a_wrong_password_and_an_unknown_address_look_alike(database, tokens, address, known):
    if known:
        sign_up(database, tokens, email=address, password=PASSWORD)

    with pytest.raises(NotAuthenticated) as caught:
        log_in(database, tokens, email=address, password="wrong horse")
    assert caught.value.code == "invalid_credentials"
    assert caught.value.message == "The e-mail address or the password is wrong."


def test_a_user_chooses_among_their_own_accounts(database, tokens, address):
    entry = sign_up(database, tokens, email=address, password=PASSWORD)
    other = sign_up(database, tokens, email=f"other-{address}", password=PASSWORD)

    chosen = log_in(database, tokens, email=address, password=PASSWORD, account_id=entry.caller.account_id)
    assert chosen.caller == entry.caller
    with pytest.raises(NotAllowed):
        log_in(database, tokens, email=address, password=PASSWORD, account_id=other.caller.account_id)


def test_an_old_hash_is_renewed_at_login(database, tokens, address):
    entry = sign_up(database, tokens, email=address, password=PASSWORD)
    old = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(PASSWORD)
    with database.connection() as connection:
        accounts.set_password(connection, entry.caller.user_id, old)

    log_in(database, tokens, email=address, password=PASSWORD)

    with database.connection() as connection:
        assert accounts.find_by_email(connection, address).password_hash != old


@pytest.mark.parametrize("email", ["a@example.com", "a@x.test", "a@box.local", "a@intranet", "ä@example.com"])
def test_addresses_that_pass(email):
    assert normal_address(email) == email


@pytest.mark.parametrize(
    "email", ["", "a", "@example.com", "a@", "a b@example.com", "a@exa mple.com", "a@b@c.com", "a\n@b.com"]
)
def test_addresses_that_do_not(email):
    with pytest.raises(InvalidRequest) as caught:
        normal_address(email)
    assert caught.value.param == "email"
