"""The OpenAPI document: it is valid and complete, and describes each route as the table does."""

from typing import Any

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator
from pydantic import Field
from typing_extensions import TypedDict

from pipelines.requests.validation import RequestBody
from web.access.rights import Rights
from web.api.request import Request
from web.api.routing import Route
from web.api.system import openapi
from web.api.system.openapi import document
from web.http.queries import RequestQuery
from web.http.responses import json_response
from web.routes import ROUTES

#: Routes whose response is not JSON: pages and their files, metrics, and the content of a file.
NOT_JSON = {
    "/",
    "/pages/{name}",
    "/auth/verify",
    "/auth/reset",
    "/auth/invitation",
    "/docs",
    "/docs/{name}",
    "/metrics",
    "/v1/files/{file_id}/content",
    "/admin/reports/{report_id}/content",
    "/billing/invoices/{invoice_id}/html",
    "/billing/invoices/{invoice_id}/pdf",
    "/billing/credit_notes/{credit_note_id}/html",
    "/billing/credit_notes/{credit_note_id}/pdf",
    "/billing/simulator/charges/{charge_id}",
    "/billing/simulator/methods/{customer_id}",
}


class CreateGift(RequestBody):
    """The gift to create."""

    text: str = Field(max_length=100)


class ListGifts(RequestQuery):
    """The gifts to list."""

    limit: int = Field(20, ge=1, le=100)
    kind: str | None = None


class Gift(TypedDict):
    """A gift."""

    id: str


def create(request: Request):
    """`POST /v1/gifts/{gift_id}`: create a gift. Raises NotFound.

    It is wrapped.
    """
    return json_response({"id": "gift_1"})


def list_gifts(request: Request):
    """`GET /v1/gifts`: list the gifts."""
    return json_response({})


@pytest.fixture(scope="module")
def whole_document() -> dict[str, Any]:
    """The document of the whole route table."""
    return document(ROUTES)


def test_document_is_valid_openapi(whole_document):
    # When the whole route table is described, then the document is valid OpenAPI 3.1
    assert [error.message for error in OpenAPIV31SpecValidator(whole_document).iter_errors()] == []


def test_every_route_is_described_once_with_a_unique_id(whole_document):
    # When the whole route table is described
    ids = [operation["operationId"] for methods in whole_document["paths"].values() for operation in methods.values()]
    # Then each route is in the document, and no two share an id
    assert len(ids) == len([route for route in ROUTES if route.in_openapi])
    assert len(set(ids)) == len(ids)


def test_every_route_declares_its_response():
    # When a route is not a page, then it declares a response type, a stream, or a status without content
    undeclared = [
        f"{route.method} {route.path}"
        for route in ROUTES
        if route.in_openapi
        and route.path not in NOT_JSON
        and route.response is None
        and not route.streams
        and route.status not in (204, 302)
    ]
    assert undeclared == []


def test_every_route_declares_the_body_and_query_that_it_parses():
    # When an endpoint's code calls a parser, then its route declares the type
    undeclared = [
        f"{route.method} {route.path}"
        for route in ROUTES
        if (route.body is None and "parse" in route.endpoint.__code__.co_names)
        or (route.query is None and "parse_query" in route.endpoint.__code__.co_names)
    ]
    assert undeclared == []


def test_a_route_becomes_an_operation():
    # Given routes with types and rights
    routes = [
        Route(
            "POST",
            "/v1/gifts/{gift_id:path}",
            create,
            Rights.WRITE,
            body=CreateGift,
            response=Gift,
            status=201,
            creates=True,
        ),
        Route("GET", "/v1/gifts", list_gifts, Rights.PERSON, query=ListGifts, response=list[Gift], streams=True),
    ]
    # When they are described
    described = document(routes)
    create_operation, list_operation = (
        described["paths"]["/v1/gifts/{gift_id}"]["post"],
        described["paths"]["/v1/gifts"]["get"],
    )
    # Then the docstring is the text, the path is the tag, and the rights are the security
    assert create_operation["summary"] == "Create a gift"
    assert create_operation["description"].startswith("It is wrapped.")
    assert create_operation["tags"] == ["gifts"]
    assert create_operation["security"] == [{"token": []}, {"key": ["write"]}]
    assert list_operation["security"] == [{"token": []}]
    # And bodies are described by reference, queries without null
    assert create_operation["requestBody"]["content"]["application/json"]["schema"] == {
        "$ref": "#/components/schemas/CreateGift"
    }
    assert described["components"]["schemas"]["CreateGift"]["additionalProperties"] is False
    assert create_operation["responses"]["201"]["content"]["application/json"]["schema"]["$ref"].endswith("/Gift")
    assert [parameter["name"] for parameter in list_operation["parameters"][:2]] == ["limit", "kind"]
    assert "anyOf" not in list_operation["parameters"][1]["schema"]
    assert "ListGifts" not in described["components"]["schemas"]
    assert "text/event-stream" in list_operation["responses"]["200"]["content"]
    # And error responses are described
    assert {"401", "403", "404", "409", "413", "422", "429", "503"} <= set(create_operation["responses"])
    assert {"404", "413", "422"}.isdisjoint(list_operation["responses"])


def test_the_document_is_not_sent_again_to_a_client_with_its_etag(make_client):
    # Given a client that has the document
    client = make_client(Route("GET", "/openapi.json", openapi.read, Rights.PUBLIC))
    first = client.get("/openapi.json")
    assert first.json()["openapi"] == "3.1.0"
    # When it requests it with the entity tag
    second = client.get("/openapi.json", headers={"if-none-match": first.headers["etag"]})
    # Then the response is 304 without content
    assert second.status_code == 304
    assert second.content == b""
