"""`/v1/api_keys`: create, list, update and revoke API keys; members manage their own keys, admins all keys."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal

from pydantic import Field
from starlette.responses import Response
from typing_extensions import TypedDict

from models.access import api_keys
from models.access.api_keys import ApiKey
from models.accounts.accounts import KeyMemory, Scope
from models.accounts.residency import Residency
from models.platform.errors import InvalidRequest
from pipelines.accounts import keys
from pipelines.accounts.keys import NewApiKey
from pipelines.requests.validation import RequestBody
from web.api.accounts.names import PublicName
from web.api.request import Request
from web.http import bodies
from web.http.paging import Listing, page_response
from web.http.queries import parse_query
from web.http.responses import json_response
from web.http.timestamps import UnixTime, from_unix, to_unix

ScopeName = Literal["read", "write", "inference", "billing", "admin"]

#: Names of models.
ModelNames = Annotated[list[Annotated[str, Field(min_length=1, max_length=256)]], Field(max_length=64)]

#: The longest lifetime of a key: ten years, in seconds.
MAX_LIFETIME = 10 * 366 * 86_400


class CreateApiKey(RequestBody):
    """The body of `POST /v1/api_keys`. `expires_at` is in Unix seconds, `expires_in` in seconds from now.

    `memory` says which memories requests without an end user's name use: none (`named`), or those of the key's user
    (`owner`), for an application that serves only this user. With `residency` `local` no turn of the key's requests
    leaves the operator's network. With `models` its requests may use only these, of those that the account may.
    """

    name: PublicName
    scopes: Annotated[list[ScopeName], Field(min_length=1, max_length=10)] | None = None
    expires_at: UnixTime | None = None
    expires_in: int | None = Field(None, ge=1, le=MAX_LIFETIME)
    memory: KeyMemory = "named"
    residency: Residency | None = None
    models: ModelNames | None = None


class UpdateApiKey(RequestBody):
    """The body of `PATCH /v1/api_keys/{id}`. Omitted fields stay unchanged; `expires_at: null` removes the expiry.

    `models: null` lets its requests use all models that the account may.
    """

    name: PublicName | None = None
    expires_at: UnixTime | None = None
    memory: KeyMemory | None = None
    residency: Residency | None = None
    models: ModelNames | None = None


class ApiKeyObject(TypedDict):
    """An API key without its secret. `hint` shows the secret's first and last characters; times are in Unix seconds."""

    id: str
    object: Literal["api_key"]
    name: str
    hint: str
    scopes: list[ScopeName]
    memory: KeyMemory
    residency: Residency | None
    models: list[str] | None
    status: api_keys.KeyStatus
    user_id: str
    created_at: int
    expires_at: int | None
    last_used_at: int | None
    revoked_at: int | None


class CreatedApiKey(ApiKeyObject):
    """A new API key. `key` is the secret, which no later response contains."""

    key: str


class ApiKeyDeleted(TypedDict):
    """A revoked API key."""

    id: str
    object: Literal["api_key.deleted"]
    deleted: bool


def create(request: Request) -> Response:
    """`POST /v1/api_keys`: create an API key; only this response contains its secret."""
    body = bodies.parse(request.body, CreateApiKey)
    key, secret = keys.create(
        request.platform.database, request.caller, _new_api_key(body), request.new_id("key"), request.origin
    )
    created: CreatedApiKey = {**api_key_object(key), "key": secret}
    return json_response(created, 201, {"cache-control": "no-store"})


def list_keys(request: Request) -> Response:
    """`GET /v1/api_keys`: list the caller's API keys, for an admin those of the account, newest first."""
    query = parse_query(request.query, Listing)
    user_id = keys.owner_filter(request.caller)
    with request.platform.database.connection() as connection:
        records = api_keys.list_keys(
            connection, request.caller.account_id, user_id=user_id, after=query.after, limit=query.fetch_limit
        )
    return page_response(records, query.limit, api_key_object)


def read(request: Request) -> Response:
    """`GET /v1/api_keys/{id}`: read an API key."""
    with request.platform.database.connection() as connection:
        return json_response(api_key_object(keys.find(connection, request.caller, request.path_params["key_id"])))


def update(request: Request) -> Response:
    """`PATCH /v1/api_keys/{id}`: change the name, the expiry, the memory, the residency or the models of an API key."""
    body = bodies.parse(request.body, UpdateApiKey)
    key = keys.change(
        request.platform.database,
        request.caller,
        request.path_params["key_id"],
        request.origin,
        name=body.name,
        memory=body.memory,
        residency=body.residency,
        change_models="models" in body.model_fields_set,
        models=body.models,
        change_expiry="expires_at" in body.model_fields_set,
        expires_at=from_unix(body.expires_at),
    )
    return json_response(api_key_object(key))


def revoke(request: Request) -> Response:
    """`DELETE /v1/api_keys/{id}`: revoke an API key; requests with it are rejected from now on."""
    key_id = request.path_params["key_id"]
    keys.revoke(request.platform.database, request.caller, key_id, request.origin)
    revoked: ApiKeyDeleted = {"id": key_id, "object": "api_key.deleted", "deleted": True}
    return json_response(revoked)


def api_key_object(key: ApiKey) -> ApiKeyObject:
    """Convert an API key to its API object, without the secret."""
    return {
        "id": key.id,
        "object": "api_key",
        "name": key.name,
        "hint": key.hint,
        "scopes": [scope.value for scope in key.scopes],
        "memory": key.memory,
        "residency": key.key_residency,
        "models": key.key_models,
        "status": key.status,
        "user_id": key.user_id,
        "created_at": int(key.created_at.timestamp()),
        "expires_at": to_unix(key.expires_at),
        "last_used_at": to_unix(key.last_used_at),
        "revoked_at": to_unix(key.revoked_at),
    }


def _new_api_key(body: CreateApiKey) -> NewApiKey:
    if body.expires_at is not None and body.expires_in is not None:
        raise InvalidRequest(
            "Mutually exclusive parameters: 'expires_at' and 'expires_in'. Provide only one of them.",
            param="expires_in",
        )
    expires_at = from_unix(body.expires_at)
    if body.expires_in is not None:
        expires_at = datetime.now(UTC) + timedelta(seconds=body.expires_in)
    scopes = (
        keys.DEFAULT_SCOPES if body.scopes is None else tuple(scope for scope in Scope if scope.value in body.scopes)
    )
    return NewApiKey(body.name, scopes, expires_at, body.memory, body.residency, body.models)
