"""The description of the door: whether it is OpenAPI, is complete, and says of each row what the row says."""

from typing import Any

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator
from pydantic import Field
from typing_extensions import TypedDict

from web.access.rights import Rights
from web.api.request import Request
from web.api.routing import Route
from web.api.system import openapi
from web.api.system.openapi import document
from web.http.responses import json_response
from web.http.validation import Body, Query
from web.routes import ROUTES

#: What answers with no JSON: pages and their files, Prometheus' text, and the bytes of a file.
NO_JSON = {
    "/",
    "/pages/{name}",
    "/auth/verify",
    "/auth/reset",
    "/auth/invitation",
    "/docs",
    "/docs/{name}",
    "/metrics",
    "/v1/files/{file_id}/content",
}


class Wish(Body):
    """What is wished for."""

    text: str = Field(max_length=100)


class Which(Query):
    """Which of them."""

    limit: int = Field(20, ge=1, le=100)
    kind: str | None = None


class Gift(TypedDict):
    """What is given."""

    id: str


def give(request: Request):
    """`POST /v1/gifts/{gift_id}`: give a thing. Raises NotFound.

    It is wrapped.
    """
    return json_response({"id": "gift_1"})


def look(request: Request):
    """`GET /v1/gifts`: the gifts."""
    return json_response({})


@pytest.fixture(scope="module")
def whole() -> dict[str, Any]:
    """The document of the route table."""
    return document(ROUTES)


def test_document_is_valid_openapi(whole):
    # When the whole table is described, then the description breaks no rule of OpenAPI 3.1
    assert [error.message for error in OpenAPIV31SpecValidator(whole).iter_errors()] == []


def test_every_row_is_described_once_and_has_a_name_of_its_own(whole):
    # When the whole table is described
    names = [operation["operationId"] for methods in whole["paths"].values() for operation in methods.values()]
    # Then each row is there, and no two share a name
    assert len(names) == len(ROUTES)
    assert len(set(names)) == len(names)


def test_every_row_says_what_it_answers():
    # When a row is no page, then it states the type of its answer, or that it is a stream, or that it has no content
    silent = [
        f"{row.method} {row.path}"
        for row in ROUTES
        if row.path not in NO_JSON and row.response is None and not row.streams and row.status not in (204, 302)
    ]
    assert silent == []


def test_every_row_that_is_sent_something_says_what():
    # When an endpoint parses a body or a query, then its row states the type: it names them in its own code
    silent = [
        f"{row.method} {row.path}"
        for row in ROUTES
        if (row.body is None and "parse" in row.endpoint.__code__.co_names)
        or (row.query is None and "parse_query" in row.endpoint.__code__.co_names)
    ]
    assert silent == []


def test_row_becomes_an_operation():
    # Given rows with types, and rights
    rows = [
        Route(
            "POST", "/v1/gifts/{gift_id:path}", give, Rights.WRITE, body=Wish, response=Gift, status=201, creates=True
        ),
        Route("GET", "/v1/gifts", look, Rights.PERSON, query=Which, response=list[Gift], streams=True),
    ]
    # When they are described
    told = document(rows)
    give_it, look_at = told["paths"]["/v1/gifts/{gift_id}"]["post"], told["paths"]["/v1/gifts"]["get"]
    # Then the docstring is the text, the path is the tag, and the rights are the security
    assert give_it["summary"] == "Give a thing"
    assert give_it["description"].startswith("It is wrapped.")
    assert give_it["tags"] == ["gifts"]
    assert give_it["security"] == [{"token": []}, {"key": ["write"]}]
    assert look_at["security"] == [{"token": []}]
    # And what goes in and out is told, shared types by reference, a query without its nulls
    assert give_it["requestBody"]["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/Wish"}
    assert told["components"]["schemas"]["Wish"]["additionalProperties"] is False
    assert give_it["responses"]["201"]["content"]["application/json"]["schema"]["$ref"].endswith("/Gift")
    assert [parameter["name"] for parameter in look_at["parameters"][:2]] == ["limit", "kind"]
    assert "anyOf" not in look_at["parameters"][1]["schema"]
    assert "Which" not in told["components"]["schemas"]
    assert "text/event-stream" in look_at["responses"]["200"]["content"]
    # And what it may refuse
    assert {"401", "403", "404", "409", "413", "422", "429", "503"} <= set(give_it["responses"])
    assert {"404", "413", "422"}.isdisjoint(look_at["responses"])


def test_description_is_sent_once(make_client):
    # Given a client that has the description
    client = make_client(Route("GET", "/openapi.json", openapi.read, Rights.PUBLIC))
    first = client.get("/openapi.json")
    assert first.json()["openapi"] == "3.1.0"
    # When it asks whether there is another
    again = client.get("/openapi.json", headers={"if-none-match": first.headers["etag"]})
    # Then there is none
    assert again.status_code == 304
    assert again.content == b""
