"""Given the route table, when everybody knocks at every route, then exactly those come in whom its rights name.

Who comes in is written out here once more, so that neither the table's rights nor their check can change unnoticed.
"""

import re

import pytest

from models.accounts.accounts import Scope
from tests.web.api_client import app_client
from tests.web.principals import (
    API_KEYS,
    OTHER_ACCOUNTS,
    RESOURCE_FACTORIES,
    ROLES,
    UNAUTHENTICATED,
    Principals,
    Resources,
)
from web.access.rights import Rights
from web.api.routing import Route
from web.routes import ROUTES

COMES_IN = None

EVERYBODY = dict.fromkeys((*ROLES, *OTHER_ACCOUNTS), COMES_IN)
NO_KEY = dict.fromkeys(API_KEYS, "person_required")


def with_scope(needed: Scope) -> dict[str, str | None]:
    """What keys hear where this scope is needed."""
    return {f"{scope} key": COMES_IN if scope is needed else "insufficient_scope" for scope in Scope} | {
        "demoted key": COMES_IN
    }


NOT_MEMBERS = {"member": "forbidden", "demoted key": "forbidden"}

#: What each visitor that is known hears: the code of a 403, or COMES_IN.
MATRIX: dict[Rights, dict[str, str | None]] = {
    Rights.PUBLIC: EVERYBODY | dict.fromkeys(API_KEYS, COMES_IN),
    Rights.READ: EVERYBODY | with_scope(Scope.READ),
    Rights.WRITE: EVERYBODY | with_scope(Scope.WRITE),
    Rights.INFERENCE: EVERYBODY | with_scope(Scope.INFERENCE),
    Rights.PERSON: EVERYBODY | NO_KEY,
    Rights.KEYS: EVERYBODY | with_scope(Scope.ADMIN),
    Rights.BILLING: EVERYBODY | with_scope(Scope.BILLING) | NOT_MEMBERS,
    Rights.ADMIN: EVERYBODY | with_scope(Scope.ADMIN) | NOT_MEMBERS,
    Rights.OWNER: EVERYBODY | NO_KEY | NOT_MEMBERS | {"admin": "forbidden"},
    Rights.OPERATOR: dict.fromkeys(EVERYBODY, "operator_required") | NO_KEY | {"operator": COMES_IN},
}

#: Parameters of paths that name nothing of an account's.
NAMES = {"name": "index.css", "model": "default", "plan_id": "default", "provider": "nobody"}

#: Things that belong to one person (here the owner) and are hidden from everybody else in the account too.
PERSONAL = {"session_id", "memory_id", "meditation_id"}

#: Whom what is the owner's own is shown to: the owner, and keys of theirs.
OWN = {"owner", *(f"{scope} key" for scope in Scope)}

#: Reading that takes a body.
ASKS = {"/v1/memories/search"}

#: Answers that are not JSON: pages, files, streams, metrics.
NOT_JSON = {
    ("GET", "/"),
    ("GET", "/pages/{name}"),
    ("GET", "/docs"),
    ("GET", "/docs/{name}"),
    ("GET", "/metrics"),
    ("GET", "/auth/verify"),
    ("GET", "/auth/reset"),
    ("GET", "/auth/invitation"),
    ("GET", "/auth/oidc/{provider}"),
    ("GET", "/auth/oidc/{provider}/callback"),
    ("GET", "/v1/jobs/{job_id}/events"),
    ("GET", "/v1/meditations/{meditation_id}/events"),
    ("GET", "/v1/files/{file_id}/content"),
}

#: What must be sent for a route to look for the thing that its path names; `{}` will do for the others.
BODIES: dict[tuple[str, str], object] = {
    ("POST", "/v1/conversations/{conversation_id}"): {"metadata": {}},
    ("POST", "/v1/conversations/{conversation_id}/items"): {"items": [{"role": "user", "content": "hello"}]},
    ("PATCH", "/v1/account/members/{user_id}"): {"role": "member"},
    # Not to wait for a worker, of which there is none here.
    ("POST", "/v1/responses/input_tokens"): {"input": 5},
    ("PATCH", "/v1/memories/{memory_id}"): {"importance": 0.25},
}

#: Routes that may say 503 for reasons of their own.
MAY_BE_DOWN = {"/readyz"}


def name(row: Route) -> str:
    return f"{row.method} {row.path}"


def parameters(row: Route) -> list[str]:
    return re.findall(r"{(\w+)", row.path)


@pytest.fixture(scope="module")
def api(settings):
    """The whole door. Everybody comes from one address, which would else have failed too often."""
    with app_client(settings.model_copy(update={"visits_per_minute": 1_000_000})) as client:
        yield client


@pytest.fixture
def principals(api, database, settings):
    """Everybody, fresh."""
    principals = Principals(api, database, settings)
    yield principals
    principals.delete(database)


@pytest.fixture
def knock(principals, database):
    """`knock(visitor, row)` → the answer, or what of it there is when it is a stream."""
    things = Resources(principals, database)

    def path(row: Route) -> str:
        filled = {name: NAMES[name] if name in NAMES else things[name] for name in parameters(row)}
        return re.sub(r"{(\w+)[^}]*}", lambda match: filled[match[1]], row.path)

    def knock(principal: str, row: Route):
        body = {} if row.body is None else {"json": BODIES.get((row.method, row.path), {})}
        return principals.request(principal, row.method, path(row), **body)

    return knock


@pytest.mark.parametrize("row", ROUTES, ids=name)
def test_exactly_those_come_in_whom_the_rights_name(row, knock):
    expected = MATRIX[row.rights]
    for principal in UNAUTHENTICATED:
        answer = knock(principal, row)
        if row.rights == Rights.PUBLIC:
            came_in(answer, principal, row)
        else:
            code = "token_expired" if principal == "expired token" else "invalid_api_key"
            turned_away(answer, principal, 401, code)
    # Those who come in go last: the route may do what it is for.
    for principal in [principal for principal in expected if expected[principal] is not COMES_IN]:
        turned_away(knock(principal, row), principal, 403, expected[principal])
    for principal in [
        principal for principal in (*OTHER_ACCOUNTS, *ROLES, *API_KEYS) if expected[principal] is COMES_IN
    ]:
        answer = knock(principal, row)
        came_in(answer, principal, row)
        hidden_from_others(answer, principal, row)


def came_in(answer, principal: str, row: Route) -> None:
    """Whatever the route made of it, the visitor was let through."""
    if answer.status_code == 503 and row.path in MAY_BE_DOWN:
        return
    allowed = {429} if row.rights == Rights.PUBLIC else set()
    assert answer.status_code not in {401, 403, 429} - allowed, (principal, answer.text)
    assert answer.status_code < 500, (principal, answer.text)


def turned_away(answer, principal: str, status: int, code: str | None) -> None:
    assert answer.status_code == status, (principal, answer.status_code)
    assert answer.json()["error"]["code"] == code, (principal, answer.text)
    assert ("www-authenticate" in answer.headers) == (status == 401), principal


def hidden_from_others(answer, principal: str, row: Route) -> None:
    """What an account has does not exist for others; that its owner gets it shows that it was there to be seen."""
    named = set(parameters(row)) - set(NAMES)
    if row.rights in (Rights.PUBLIC, Rights.OPERATOR) or not named:
        return
    if principal in OTHER_ACCOUNTS or (named & PERSONAL and principal not in OWN):
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found"), (principal, answer.text)
    elif principal == "owner":
        assert answer.status_code != 404, answer.text


@pytest.mark.parametrize("row", ROUTES, ids=name)
def test_a_row_states_rights_and_an_answer_and_names_known_things(row):
    assert row.rights in MATRIX, "state one of the rights of web/access/rights.py"
    assert row.response is not None or (row.method, row.path) in NOT_JSON, "state the type of its answer"
    unknown = set(parameters(row)) - set(NAMES) - set(RESOURCE_FACTORIES) - {"account_id"}
    assert not unknown, "tests/web/principals.py should make such a thing"


@pytest.mark.parametrize("row", ROUTES, ids=name)
def test_rights_are_fit_for_their_address(row):
    assert row.path.startswith("/admin/") == (row.rights == Rights.OPERATOR)
    if row.path.startswith("/v1/"):
        assert row.rights != Rights.PUBLIC
    if row.method != "GET" and row.path not in ASKS:
        assert row.rights != Rights.READ


def test_the_matrix_tells_of_everybody():
    for told in MATRIX.values():
        assert set(told) == {*ROLES, *OTHER_ACCOUNTS, *API_KEYS}
