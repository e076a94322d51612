"""`/v1/models`: the local engine under its name and as the default."""

import pytest

from models.serving.served_models import ModelDescription, ServedModel, ServedModels
from models.serving.state import QueueState, ServingState
from web.access.rights import Rights
from web.api.routing import Route
from web.api.turns import models


@pytest.fixture
def client(make_client, monkeypatch):
    """The routes, for an account with an agent."""
    agent = {
        "id": "agent/helper", "object": "model", "created": 1, "owned_by": "acct_alice", "status": "available"
    }  # fmt: skip
    monkeypatch.setattr(models, "_agent_models", lambda request: {agent["id"]: agent})
    return make_client(
        Route("GET", "/v1/models", models.list_models, Rights.READ),
        Route("GET", "/v1/models/{model:path}", models.retrieve_model, Rights.READ),
    )


def test_the_list_has_openais_shape(client):
    answer = client.get("/v1/models").json()

    assert answer["object"] == "list"
    assert [model["id"] for model in answer["data"]] == ["scripted", "default", "all-minilm-l6-v2", "agent/helper"]
    assert {"id", "object", "created", "owned_by", "status"} == set(answer["data"][0])


def test_a_model_is_read_by_name(client):
    assert client.get("/v1/models/default").json()["id"] == "default"


def test_a_model_has_its_work_and_the_wait_of_a_turn_that_is_sent_now(client):
    description = ModelDescription("scripted", context=2048)
    model = ServedModel("scripted", description, "inference", slots=2)
    queue = QueueState(threads=2, waiting=3, running=2, mean_seconds=10, published=3, lanes=1)
    client.app.state.platform.serving.state = lambda: ServingState(ServedModels([model], model), {"inference": queue})

    serving = client.get("/v1/models/scripted").json()["sangha"]

    assert serving == {"predicted_wait": 20, "queued": 3, "running": 2, "slots": 2, "context": 2048}
    assert client.get("/v1/models/default").json()["sangha"] == serving
    assert "sangha" not in client.get("/v1/models/all-minilm-l6-v2").json()
    assert "sangha" not in client.get("/v1/models/agent/helper").json()


def test_an_agent_is_read_as_a_model(client):
    assert client.get("/v1/models/agent/helper").json()["id"] == "agent/helper"


def test_the_list_with_a_slash_is_not_taken_for_a_model(client):
    response = client.get("/v1/models/")

    assert response.status_code == 404
    assert response.json()["error"]["code"] == "not_found"


@pytest.mark.parametrize("name", ["other", "some/other", "%2e%2e", "agent/other"])
def test_an_unknown_model_is_a_404(client, name):
    response = client.get(f"/v1/models/{name}")

    assert response.status_code == 404
    assert response.json()["error"]["code"] == "model_not_found"


def test_models_of_workers_and_endpoints_are_listed_with_their_state(make_client, monkeypatch):
    monkeypatch.setattr(models, "_agent_models", lambda request: {})
    # Given a default model that is served, another that is not, and one of an endpoint
    client = make_client(Route("GET", "/v1/models", models.list_models, Rights.READ))
    small = ServedModel("small", ModelDescription("small"), "inference", slots=2)
    large = ServedModel("large", ModelDescription("large"), "inference.large")
    hosted = ServedModel("huge", ModelDescription("huge", endpoint="groq"), "upstream.groq", slots=16)
    serving = client.app.state.platform.serving
    serving._known = ServingState(ServedModels([small, large, hosted], small))
    # When
    listed = client.get("/v1/models").json()["data"]
    # Then
    assert [(each["id"], each["owned_by"], each["status"]) for each in listed[:4]] == [
        ("small", "sangha", "available"), ("default", "sangha", "available"), ("large", "sangha", "unavailable"),
        ("huge", "groq", "available"),
    ]  # fmt: skip
