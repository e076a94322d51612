"""Given the whole door, when people sign up and log in over HTTP, then they get tokens that open it."""

import pytest

from models.ids import new_id
from web.app import build


@pytest.fixture
def client(settings, database, serve):
    return serve(build(settings))


@pytest.fixture
def person():
    return {"email": f"{new_id('test')}@example.com", "password": "correct horse"}


def test_signup_then_login_then_a_call(client, person):
    signup = client.post("/signup", json=person)
    login = client.post("/login", json=person)

    assert (signup.status_code, login.status_code) == (201, 200)
    assert signup.json()["user"] == {"id": login.json()["user"]["id"], "email": person["email"]}
    assert signup.json()["account"] == login.json()["account"]
    assert login.json()["token_type"] == "bearer"
    headers = {"authorization": f"Bearer {login.json()['token']}"}
    assert client.get("/v1/models", headers=headers).status_code == 200


def test_a_taken_address_is_a_permanent_conflict(client, person):
    client.post("/signup", json=person)

    again = client.post("/signup", json=person)

    assert (again.status_code, again.headers["x-should-retry"]) == (409, "false")
    assert again.json()["error"]["code"] == "email_taken"


def test_wrong_credentials_look_alike(client, person):
    client.post("/signup", json=person)

    wrong = client.post("/login", json=person | {"password": "wrong horse"})
    unknown = client.post("/login", json=person | {"email": f"un{person['email']}"})

    assert wrong.status_code == unknown.status_code == 401
    assert wrong.json() == unknown.json()


@pytest.mark.parametrize(("table", "part"), [("accounts", "account"), ("users", "user")])
def test_a_token_whose_account_or_user_is_gone_is_no_longer_valid(client, person, database, table, part):
    signup = client.post("/signup", json=person).json()
    client.headers["authorization"] = f"Bearer {signup['token']}"
    with database.connection() as connection:
        connection.execute(f"DELETE FROM {table} WHERE id = %s", (signup[part]["id"],))

    response = client.post("/v1/responses", json={"model": "default", "input": "hello"})

    assert (response.status_code, response.json()["error"]["code"]) == (401, "invalid_api_key")
    assert response.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"email": "nonsense"}, "email"),
        ({"email": 5}, "email"),
        ({"password": "short"}, "password"),
        ({"password": None}, "password"),
        ({"account": "x"}, "account"),
        ({"email": "a\0@example.com"}, None),
    ],
)
def test_what_is_wrong_is_named(client, person, change, param):
    response = client.post("/signup", json=person | change)

    assert (response.status_code, response.json()["error"]["param"]) == (400, param)


def test_the_public_keys_are_public(client):
    (key,) = client.get("/.well-known/jwks.json").json()["keys"]

    assert (key["kty"], key["crv"], key["alg"], "d" in key) == ("OKP", "Ed25519", "Ed25519", False)
