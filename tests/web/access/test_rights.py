"""Rights of all routes: every principal requests every route, and is admitted or rejected as the matrix says.

The matrix repeats the meaning of the rights, so that neither the route table nor the check can change unnoticed.
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
    Resources,
)
from web.access.rights import Rights
from web.api.routing import Route
from web.routes import ROUTES

ADMITTED = None

ALL_USERS = dict.fromkeys((*ROLES, *OTHER_ACCOUNTS), ADMITTED)
KEYS_REJECTED = dict.fromkeys(API_KEYS, "person_required")


def with_scope(needed: Scope) -> dict[str, str | None]:
    """Return the expectations for API keys on a route that needs this scope."""
    return {f"{scope} key": ADMITTED if scope is needed else "insufficient_scope" for scope in Scope} | {
        "demoted key": ADMITTED
    }


MEMBERS_REJECTED = {"member": "forbidden", "demoted key": "forbidden"}

#: The expectation for each authenticated principal: the code of a 403, or ADMITTED.
MATRIX: dict[Rights, dict[str, str | None]] = {
    Rights.PUBLIC: ALL_USERS | dict.fromkeys(API_KEYS, ADMITTED),
    Rights.READ: ALL_USERS | with_scope(Scope.READ),
    Rights.WRITE: ALL_USERS | with_scope(Scope.WRITE),
    Rights.INFERENCE: ALL_USERS | with_scope(Scope.INFERENCE),
    Rights.PERSON: ALL_USERS | KEYS_REJECTED,
    Rights.KEYS: ALL_USERS | with_scope(Scope.ADMIN),
    Rights.BILLING: ALL_USERS | with_scope(Scope.BILLING) | MEMBERS_REJECTED,
    Rights.ADMIN: ALL_USERS | with_scope(Scope.ADMIN) | MEMBERS_REJECTED,
    Rights.OWNER: ALL_USERS | KEYS_REJECTED | MEMBERS_REJECTED | {"admin": "forbidden"},
    Rights.OPERATOR: dict.fromkeys(ALL_USERS, "operator_required") | KEYS_REJECTED | {"operator": ADMITTED},
    Rights.OPERATIONS: ALL_USERS | dict.fromkeys(API_KEYS, ADMITTED),
    Rights.METRICS: dict.fromkeys(ALL_USERS, "operator_required") | KEYS_REJECTED | {"operator": ADMITTED},
}

#: Routes that change what the whole account uses, which members may do only with what they have created themselves.
CREATORS_OR_ADMINS = {("PATCH", "/v1/agents/{agent_id}"), ("DELETE", "/v1/agents/{agent_id}")}


def expectations(route: Route) -> dict[str, str | None]:
    """Return the expectations for requests about resources of the owner."""
    refused = MEMBERS_REJECTED if (route.method, route.path) in CREATORS_OR_ADMINS else {}
    return MATRIX[route.rights] | refused


#: Path parameters that do not name anything of an account.
FIXED_PARAMETERS = {
    "name": "index.css",
    "model": "default",
    "plan_id": "default",
    "provider": "nobody",
    "gateway": "test",
    "charge_id": "ch_none",
    "customer_id": "nobody",
    "scope": "account",
}

#: Path parameters of resources that only one user of the account may see, whatever the role of others.
PERSONAL = {
    "completion_id",
    "session_id",
    "memory_id",
    "meditation_id",
    "response_id",
    "conversation_id",
    "item_id",
    "upload_id",
}

#: Path parameters of resources that one user and the account's admins may see.
MANAGED = {"job_id", "schedule_id", "approval_id", "batch_id"}

#: Path parameters of what the roles of an account decide about, whose ever it is; tests of their routes say how.
BY_ROLE = {
    "agent_id",
    "invoice_id",
    "credit_note_id",
    "account_id",
    "user_id",
    "invitation_id",
    "file_id",
    "report_id",
    "key_id",
    "payment_id",
    "payment_method_id",
    "server_id",
    "endpoint_id",
    "delivery_id",
    "event_id",
}

#: Routes of managed resources that are personal: they show texts, or act as the user.
PERSONAL_ROUTES = {
    ("GET", "/v1/jobs/{job_id}/events"),
    ("PATCH", "/v1/schedules/{schedule_id}"),
    ("POST", "/v1/schedules/{schedule_id}/resume"),
}

#: The users whose resources the routes are requested for, and the principals who act as them.
PERSONS = {
    "owner": {"owner", *(f"{scope} key" for scope in Scope)},
    "admin": {"admin"},
    "member": {"member"},
}

#: The principals who may see what is managed, whose ever it is.
ADMINS = {"owner", "admin", *(f"{scope} key" for scope in Scope)}

#: An id that nothing has.
MISSING_ID = "0" * 32

#: Routes that read although their method is POST.
READS_BY_POST = {"/v1/memories/search"}

#: Routes whose response is not JSON: pages, files, streams, metrics.
NOT_JSON = {
    ("GET", "/"),
    ("GET", "/pages/{name}"),
    ("GET", "/docs"),
    ("GET", "/docs/{name}"),
    ("GET", "/metrics"),
    ("GET", "/admin/reports/{report_id}/content"),
    ("POST", "/mcp"),
    ("GET", "/auth/verify"),
    ("GET", "/auth/reset"),
    ("GET", "/auth/invitation"),
    ("GET", "/auth/oidc/{provider}"),
    ("GET", "/auth/oidc/{provider}/callback"),
    ("GET", "/v1/jobs/{job_id}/events"),
    ("GET", "/v1/meditations/{meditation_id}/events"),
    ("GET", "/v1/files/{file_id}/content"),
    ("GET", "/billing/invoices/{invoice_id}/html"),
    ("GET", "/billing/invoices/{invoice_id}/pdf"),
    ("GET", "/billing/credit_notes/{credit_note_id}/html"),
    ("GET", "/billing/credit_notes/{credit_note_id}/pdf"),
    ("GET", "/billing/simulator/charges/{charge_id}"),
    ("GET", "/billing/simulator/methods/{customer_id}"),
}

#: Bodies with which a route looks for the resource in its path; `{}` suffices for the others.
BODIES: dict[tuple[str, str], object] = {
    ("POST", "/v1/conversations/{conversation_id}"): {"metadata": {}},
    ("POST", "/v1/conversations/{conversation_id}/items"): {"items": [{"role": "user", "content": "hello"}]},
    ("POST", "/v1/chat/completions/{completion_id}"): {"metadata": {}},
    ("PATCH", "/v1/account/members/{user_id}"): {"role": "member"},
    # Invalid, so that the request does not wait for a worker.
    ("POST", "/v1/responses/compact"): {"input": 5},
    ("POST", "/v1/responses/input_tokens"): {"input": 5},
    ("PATCH", "/v1/memories/{memory_id}"): {"importance": 0.25},
    ("POST", "/v1/approvals/{approval_id}"): {"approve": False},
    ("POST", "/v1/uploads/{upload_id}/complete"): {"part_ids": ["part_none"]},
    ("POST", "/v1/webhook_endpoints/{endpoint_id}/test"): {"event_type": "response.completed"},
    ("POST", "/v1/webhook_endpoints/{endpoint_id}/replay"): {"since": 0},
}

#: Routes that start a job of which an account has one at a time.
ONE_AT_A_TIME = {"/v1/account/export"}

#: Routes that may respond with 503.
MAY_BE_UNAVAILABLE = {
    "/readyz",
    "/v1/mcp_servers/{server_id}/test",
    "/v1/webhook_endpoints/{endpoint_id}/test",
}


def name(route: Route) -> str:
    return f"{route.method} {route.path}"


def parameters(route: Route) -> list[str]:
    return re.findall(r"{(\w+)", route.path)


@pytest.fixture(scope="module")
def api(settings):
    """The whole application, with a rate limit per address that allows many failed authentications, behind a proxy."""
    update = {"visits_per_minute": 1_000_000, "trusted_proxies": "192.0.2.0/24"}
    with pytest.MonkeyPatch.context() as patch, app_client(settings.model_copy(update=update)) as client:
        patch.setattr("web.api.agents.mcp_servers.TIMEOUT", 0.05)  # there is no worker
        patch.setattr("web.api.webhooks.endpoints.TIMEOUT", 0.05)
        yield client


@pytest.fixture
def send(principals, database):
    """`send(principal, route)` → the response, or the beginning of a stream.

    of   the user whose resources the path names
    ids  values of path parameters instead
    """
    resources = {person: Resources(principals, database, person) for person in PERSONS}

    def send(principal: str, route: Route, *, of: str = "owner", ids: dict[str, str] = FIXED_PARAMETERS):
        values = {name: ids.get(name) or resources[of][name] for name in parameters(route)}
        path = re.sub(r"{(\w+)[^}]*}", lambda match: values[match[1]], route.path)
        body = {} if route.body is None else {"json": BODIES.get((route.method, route.path), {})}
        return principals.request(principal, route.method, path, **body)

    return send


@pytest.mark.parametrize("route", ROUTES, ids=name)
def test_a_route_admits_exactly_the_principals_of_its_rights(route, send):
    expected = expectations(route)
    for principal in UNAUTHENTICATED:
        response = send(principal, route)
        if route.rights == Rights.PUBLIC:
            assert_admitted(response, principal, route)
        else:
            code = "token_expired" if principal == "expired token" else "invalid_api_key"
            assert_rejected(response, principal, 401, code)
    # Admitted principals come last, since their requests may change or delete something.
    for principal in [principal for principal in expected if expected[principal] is not ADMITTED]:
        assert_rejected(send(principal, route), principal, 403, expected[principal])
    for principal in [
        principal for principal in (*OTHER_ACCOUNTS, *ROLES, *API_KEYS) if expected[principal] is ADMITTED
    ]:
        response = send(principal, route)
        assert_admitted(response, principal, route)
        assert_hidden_from_others(response, principal, route)


@pytest.mark.parametrize("person", PERSONS)
@pytest.mark.parametrize(
    "route",
    [route for route in ROUTES if {*parameters(route)} & (PERSONAL | MANAGED) and route.rights != Rights.OPERATOR],
    ids=name,
)
def test_what_belongs_to_a_member_does_not_exist_for_other_members(route, person, send):
    admitted = [principal for principal, code in expectations(route).items() if code is ADMITTED]
    may_see = may_see_resources_of(person, route)
    for principal in sorted(set(admitted) - may_see):
        response = send(principal, route, of=person)
        missing = send(principal, route, ids=dict.fromkeys(parameters(route), MISSING_ID))
        assert (response.status_code, response.json()["error"]["code"]) == (404, "not_found"), (
            principal,
            response.text,
        )
        assert re.sub(r"'[\w-]+'", "", response.text) == re.sub(r"'[\w-]+'", "", missing.text), principal
    for principal in sorted(may_see & {*admitted}, key=PERSONS[person].__contains__):
        response = send(principal, route, of=person)
        assert response.status_code != 404, (principal, response.text)
        if route.method != "GET":  # the next one may find it changed
            break


def may_see_resources_of(person: str, route: Route) -> set[str]:
    """Return the principals for whom a route finds the resources of a user of the account."""
    personal = PERSONAL & {*parameters(route)} or (route.method, route.path) in PERSONAL_ROUTES
    return PERSONS[person] if personal else PERSONS[person] | ADMINS


def assert_admitted(response, principal: str, route: Route) -> None:
    """Assert that the principal was admitted, whatever the endpoint's response is."""
    if response.status_code == 503 and route.path in MAY_BE_UNAVAILABLE:
        return
    allowed = {429} if route.rights == Rights.PUBLIC or route.path in ONE_AT_A_TIME else set()
    assert response.status_code not in {401, 403, 429} - allowed, (principal, response.text)
    assert response.status_code < 500, (principal, response.text)


def assert_rejected(response, principal: str, status: int, code: str | None) -> None:
    assert response.status_code == status, (principal, response.status_code)
    assert response.json()["error"]["code"] == code, (principal, response.text)
    assert ("www-authenticate" in response.headers) == (status == 401), principal


def assert_hidden_from_others(response, principal: str, route: Route) -> None:
    """Assert that other accounts get a 404, and that the owner does not, which shows that the resource exists."""
    names = set(parameters(route)) - set(FIXED_PARAMETERS)
    if route.rights in (Rights.PUBLIC, Rights.OPERATOR) or not names:
        return
    hidden = names & (PERSONAL | MANAGED) and principal not in may_see_resources_of("owner", route)
    if principal in OTHER_ACCOUNTS or hidden:
        assert (response.status_code, response.json()["error"]["code"]) == (404, "not_found"), (
            principal,
            response.text,
        )
    elif principal == "owner":
        assert response.status_code != 404, response.text


@pytest.mark.parametrize("route", ROUTES, ids=name)
def test_a_route_declares_rights_and_a_response_type(route):
    assert route.rights in MATRIX, "use one of the rights in web/access/rights.py"
    assert route.response is not None or (route.method, route.path) in NOT_JSON, "declare the type of its response"
    unknown = set(parameters(route)) - set(FIXED_PARAMETERS) - set(RESOURCE_FACTORIES) - {"account_id"}
    assert not unknown, "add a factory to tests/web/principals.py"
    unclassified = {*parameters(route)} - PERSONAL - MANAGED - BY_ROLE - set(FIXED_PARAMETERS)
    assert not unclassified, "say which members see what the parameter names"


@pytest.mark.parametrize("route", ROUTES, ids=name)
def test_rights_fit_the_path_and_the_method(route):
    assert route.path.startswith("/admin/") == (route.rights == Rights.OPERATOR)
    if route.path.startswith("/v1/"):
        assert route.rights != Rights.PUBLIC
    if route.method != "GET" and route.path not in READS_BY_POST:
        assert route.rights != Rights.READ


def test_the_matrix_covers_all_principals():
    for expectations in MATRIX.values():
        assert set(expectations) == {*ROLES, *OTHER_ACCOUNTS, *API_KEYS}
