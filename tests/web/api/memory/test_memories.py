"""`/v1/memories` with a real worker: creating, searching, updating, importing and deleting memories."""

import json
from datetime import UTC, datetime

import pytest

from bench.harness.waiting import wait_until
from models.access import sessions
from models.accounts.accounts import Caller, Role
from models.memory import memories, spaces
from models.memory import sources as memory_sources
from models.memory.memories import NewMemory
from models.memory.spaces import SpaceKey
from models.platform.ids import new_id
from pipelines.memory.store import write_memories
from tests.web.api_client import assert_error
from tests.web.worker_process import run_worker

CONVERSATION = [
    {
        "text": "I went canoeing on the lake with my sister",
        "speaker": "Caroline",
        "occurred_at": "2026-05-01T10:00:00Z",
    },
    {"text": "That sounds lovely! Was the water cold?", "speaker": "Melanie", "occurred_at": "2026-05-01T10:01:00Z"},
    {"text": "Freezing, we had to warm up by a fire", "speaker": "Caroline", "occurred_at": 1777629720},
    {"text": "My daughter began to learn the violin", "speaker": "Melanie", "occurred_at": "2026-06-11T09:00:00+02:00"},
]


@pytest.fixture(scope="module")
def workers(settings, tmp_path_factory):
    """A worker process of the pools memory and recall."""
    with run_worker(settings, ["memory", "recall"], tmp_path_factory.mktemp("memory")):
        yield


@pytest.fixture
def conversation(user, workers):
    """Memory objects of the turns in `CONVERSATION`."""
    memories_ = [
        {**turn, "conversation_id": "trip", "metadata": {"place": number}} for number, turn in enumerate(CONVERSATION)
    ]
    answer = user.request("POST", "/v1/memories", json={"memories": memories_})
    assert answer.status_code == 201, answer.text
    return answer.json()["data"]


def search(user, query, **options):
    answer = user.request("POST", "/v1/memories/search", json={"query": query, **options})
    assert answer.status_code == 200, answer.text
    return answer.json()["data"]


def test_without_a_worker_creation_returns_the_job_and_search_a_503(user, monkeypatch):
    monkeypatch.setattr("web.api.memory.memories.TIMEOUT", 0.05)
    monkeypatch.setattr("web.api.memory.search.TIMEOUT", 0.05)

    created = user.request("POST", "/v1/memories", json={"text": "I like tea"})

    assert (created.status_code, created.json()["kind"]) == (202, "memory.create")
    assert_error(user.request("POST", "/v1/memories/search", json={"query": "tea"}), 503)
    assert [job["kind"] for job in user.jobs()] == ["memory.create"]


def test_search_returns_hits_with_score_parts_and_neighbours(user, conversation):
    assert [memory["text"] for memory in conversation] == [turn["text"] for turn in CONVERSATION]
    assert conversation[2]["occurred_at"] == "2026-05-01T10:02:00Z"
    assert conversation[3]["occurred_at"] == "2026-06-11T07:00:00Z"

    hits = search(user, "How was the water in the lake?", limit=3, include_neighbours=True)

    assert len(hits) == 3
    assert hits[0]["id"] in {conversation[1]["id"], conversation[0]["id"]}
    assert [hit["score"] for hit in hits] == sorted((hit["score"] for hit in hits), reverse=True)
    assert {"dense", "lexical", "recency", "importance"} <= set(hits[0]["parts"])
    by_id = {hit["id"]: hit for hit in hits}
    assert [near["id"] for near in by_id[conversation[1]["id"]]["neighbours"]] == [
        conversation[0]["id"],
        conversation[2]["id"],
    ]
    assert search(user, "Who plays an instrument?")[0]["id"] == conversation[3]["id"]
    assert user.jobs() == []  # jobs, which have texts and queries, are deleted


@pytest.mark.parametrize(
    ("filters", "positions"),
    [
        ({"speaker": "Melanie"}, {1, 3}),
        ({"after": "2026-05-02T00:00:00Z"}, {3}),
        ({"before": "2026-05-01T10:02:00Z"}, {0, 1}),
        ({"metadata": {"place": 2}}, {2}),
        ({"kind": "fact"}, set()),
        ({"conversation_id": "elsewhere"}, set()),
        ({}, {0, 1, 2, 3}),
    ],
)
def test_search_filters_select_matching_memories(user, conversation, filters, positions):
    assert {hit["metadata"]["place"] for hit in search(user, "the lake", **filters)} == positions


def test_search_finds_an_updated_text_only_by_its_new_words(user, conversation):
    changed = user.request(
        "PATCH", f"/v1/memories/{conversation[3]['id']}", json={"text": "My daughter plays chess now"}
    )

    assert (changed.status_code, changed.json()["text"]) == (200, "My daughter plays chess now")
    assert search(user, "chess")[0]["id"] == conversation[3]["id"]
    assert all(hit["parts"]["lexical"] == 0 for hit in search(user, "violin"))
    reweighted = user.request(
        "PATCH", f"/v1/memories/{conversation[3]['id']}", json={"importance": 1, "metadata": {}}
    ).json()
    assert (reweighted["importance"], reweighted["metadata"], reweighted["text"]) == (
        1,
        {},
        "My daughter plays chess now",
    )
    assert user.jobs() == []


def test_deleting_a_memory_closes_memories_derived_only_from_it(user, conversation, database):
    def embed(texts):
        return [[1.0] + [0.0] * 383 for _ in texts]

    caller, now = user.caller, datetime.now(UTC)
    single_source, two_sources = (
        NewMemory(new_id("mem"), f"Caroline canoes {end}", "", now, kind="fact", sources=sources)
        for end, sources in [
            ("often", [conversation[0]["id"]]),
            ("with friends", [conversation[0]["id"], conversation[1]["id"]]),
        ]
    )
    write_memories(database, embed, SpaceKey(caller.account_id, caller.user_id), [single_source, two_sources])
    derived_again = NewMemory(
        new_id("mem"), "Caroline likes canoeing", "", now, kind="insight", sources=[single_source.id]
    )
    write_memories(database, embed, SpaceKey(caller.account_id, caller.user_id), [derived_again])
    assert user.request("GET", f"/v1/memories/{single_source.id}").json()["sources"] == [conversation[0]["id"]]

    deleted = user.request("DELETE", f"/v1/memories/{conversation[0]['id']}")

    assert deleted.json() == {"id": conversation[0]["id"], "object": "memory", "deleted": True}
    assert_error(user.request("GET", f"/v1/memories/{conversation[0]['id']}"), 404)
    for closed in (single_source, derived_again):
        closed_object = user.request("GET", f"/v1/memories/{closed.id}").json()
        assert (closed_object["text"], closed_object["closed_at"] is None) == ("", False)
    kept = user.request("GET", f"/v1/memories/{two_sources.id}").json()
    assert (kept["closed_at"], kept["sources"]) == (None, [conversation[1]["id"]])
    results = {hit["id"] for hit in search(user, "canoeing with my sister on the lake", limit=100)}
    assert results == {two_sources.id, *(memory["id"] for memory in conversation[1:])}


def test_memories_are_deleted_by_conversation_and_all_at_once(user, conversation):
    user.request("POST", "/v1/memories", json={"text": "I like tea", "conversation_id": "tea"})

    assert_error(user.request("DELETE", "/v1/memories"), 400, param="conversation_id")
    assert user.request("DELETE", "/v1/memories?conversation_id=trip").json()["deleted"] == 4
    assert [hit["text"] for hit in search(user, "lake")] == ["I like tea"]
    assert user.request("DELETE", "/v1/memories?all=true").json()["deleted"] == 1
    assert search(user, "tea") == []
    assert user.jobs() == []


def test_memories_are_hidden_from_other_members_of_any_role(user, conversation, database, api):
    user_id = new_id("user")
    with database.transaction() as connection:
        connection.execute("INSERT INTO users (id, email) VALUES (%s, %s)", (user_id, f"{user_id}@example.com"))
        connection.execute(
            "INSERT INTO memberships (account_id, user_id, role) VALUES (%s, %s, 'owner')",
            (user.caller.account_id, user_id),
        )
        caller = Caller(user_id, user.caller.account_id, Role.OWNER, session_id=sessions.create(connection, user_id))
    token = api.app.state.platform.tokens.issue(caller)
    headers = {"authorization": f"Bearer {token}"}

    assert api.get("/v1/memories", headers=headers).json()["data"] == []
    assert api.get(f"/v1/memories/{conversation[0]['id']}", headers=headers).status_code == 404
    assert api.delete(f"/v1/memories/{conversation[0]['id']}", headers=headers).status_code == 404
    results = api.post("/v1/memories/search", headers=headers, json={"query": "lake"}).json()
    assert results["data"] == []


def test_memories_are_listed_in_pages_and_filtered(user, conversation):
    first = user.request("GET", "/v1/memories?limit=3").json()
    rest = user.request("GET", f"/v1/memories?limit=3&after={first['last_id']}").json()

    assert [memory["id"] for memory in first["data"] + rest["data"]] == [
        memory["id"] for memory in reversed(conversation)
    ]
    assert (first["has_more"], rest["has_more"]) == (True, False)
    in_may = user.request("GET", "/v1/memories?speaker=Melanie&occurred_before=2026-06-01T00:00:00Z").json()
    assert [memory["id"] for memory in in_may["data"]] == [conversation[1]["id"]]


def test_a_repeated_request_creates_one_memory(user, workers):
    sent = {"json": {"text": "I like tea"}, "headers": {"Idempotency-Key": new_id("key")}}

    first, second = (user.request("POST", "/v1/memories", **sent).json() for _ in range(2))

    assert first["data"][0]["id"] == second["data"][0]["id"]
    assert len(user.request("GET", "/v1/memories").json()["data"]) == 1


def test_an_import_reports_invalid_lines_and_imports_the_others(user, workers, database):
    good = [json.dumps({"text": f"In week {week} we planted tree {week}", "speaker": "Ada"}) for week in range(150)]
    lines = [*good[:5], "no json", '{"speaker": "Ada"}', '{"text": "x", "colour": "red"}', "", *good[5:]]

    created = user.request("POST", "/v1/memories/import", content="\ufeff" + "\r\n".join(lines))

    assert (created.status_code, created.json()["kind"]) == (202, "memory.import")
    path = f"/v1/jobs/{created.json()['id']}"
    job = wait_until(lambda: (job := user.request("GET", path).json())["state"] == "completed" and job, timeout=60)
    assert job["result"] | {"errors": None} == {"lines": 154, "imported": 150, "failed": 3, "errors": None}
    assert [error["line"] for error in job["result"]["errors"]] == [6, 7, 8]
    assert (job["progress"]["done"], job["progress"]["total"]) == (154, 154)
    assert "tree 77" in search(user, "tree 77")[0]["text"]
    assert user.request("GET", "/v1/files").json()["data"] == []
    with database.connection() as connection:
        space = spaces.find(connection, SpaceKey(user.caller.account_id, user.caller.user_id))
        assert space.live == 150


def upload(user, content, **fields):
    """Upload a file; returns its id."""
    answer = user.request(
        "POST", "/v1/files", files={"file": ("memories.jsonl", content)}, data={"purpose": "user_data", **fields}
    )
    return answer.json()["id"]


def test_an_uploaded_file_is_imported_and_kept(user, workers):
    lines = [json.dumps({"text": f"In week {week} we planted tree {week}"}) for week in range(150)]
    file_id = upload(user, "\n".join([*lines, "no json"]))

    created = user.request("POST", f"/v1/memories/import?file_id={file_id}&space=Ada")

    assert (created.status_code, created.json()["kind"]) == (202, "memory.import")
    path = f"/v1/jobs/{created.json()['id']}"
    job = wait_until(lambda: (job := user.request("GET", path).json())["state"] == "completed" and job, timeout=60)
    assert job["result"] | {"errors": None} == {"lines": 151, "imported": 150, "failed": 1, "errors": None}
    assert (job["progress"]["done"], job["progress"]["total"]) == (151, None)
    assert len(user.request("GET", "/v1/memories?space=Ada&limit=100").json()["data"]) == 100
    assert user.request("GET", "/v1/memories").json()["data"] == []
    assert user.request("GET", f"/v1/files/{file_id}").status_code == 200


def test_an_import_of_a_file_is_rejected_by_its_parameter(user, other_user, monkeypatch):
    line = b'{"text": "a"}'
    foreign, other, own = upload(other_user, line, audience="account"), upload(user, b"[]"), upload(user, line)
    path = "/v1/memories/import?file_id="

    for missing in (foreign, "file_none"):
        assert_error(user.request("POST", path + missing), 404, param="file_id")
    assert_error(user.request("POST", path + other), 400, param="file_id", code="invalid_json")
    assert_error(user.request("POST", path + own, content=line), 400, param="file_id")
    monkeypatch.setattr("web.api.memory.imports.FILES_SINCE", "9999")
    assert_error(user.request("POST", path + own), 503)


def test_a_search_counts_the_recall_of_its_hits(user, conversation, database):
    search(user, "lake")

    def recall_count():
        with database.connection() as connection:
            return memories.read(
                connection, conversation[0]["id"], SpaceKey(user.caller.account_id, user.caller.user_id)
            ).recalled

    assert wait_until(recall_count) == 1


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, None),
        ({"text": ""}, "text"),
        ({"text": "  "}, "text"),
        ({"text": "a" * 32_769}, "text"),
        ({"text": "a", "memories": [{"text": "b"}]}, None),
        ({"memories": []}, "memories"),
        ({"memories": [{"text": "a"}, {"text": 5}]}, "memories[1].text"),
        ({"memories": [{"text": "a"}] * 1001}, "memories"),
        ({"text": "a", "occurred_at": "yesterday"}, "occurred_at"),
        ({"text": "a", "occurred_at": "2026-05-01T10:00:00"}, "occurred_at"),
        ({"text": "a", "occurred_at": 1e30}, "occurred_at"),
        ({"text": "a", "kind": "rumour"}, "kind"),
        ({"text": "a", "importance": 1.5}, "importance"),
        ({"text": "a", "metadata": {"a": "b" * 20_000}}, "metadata"),
        ({"text": "a", "unknown": 1}, "unknown"),
    ],
)
def test_invalid_input_is_rejected_by_parameter(user, body, param):
    assert_error(user.request("POST", "/v1/memories", json=body), 400, param=param)


@pytest.mark.parametrize(
    ("body", "param"),
    [({}, "query"), ({"query": "a", "limit": 101}, "limit"), ({"query": "a", "after": "noon"}, "after")],
)
def test_an_invalid_search_is_rejected_by_parameter(user, body, param):
    assert_error(user.request("POST", "/v1/memories/search", json=body), 400, param=param)


def test_an_invalid_or_oversized_import_is_rejected(user, monkeypatch):
    monkeypatch.setattr("web.http.uploads.MAX_BYTES", 1000)

    assert_error(user.request("POST", "/v1/memories/import", content=b"x" * 1001), 413)
    assert_error(user.request("POST", "/v1/memories/import", content=(b"x" * 600 for _ in range(2))), 413)
    assert_error(user.request("POST", "/v1/memories/import", content=b""), 400)
    assert_error(user.request("POST", "/v1/memories/import", content=b'[{"text": "a"}]'), 400, code="invalid_json")


def test_sources_in_another_users_space_are_not_returned(user, other_user, database):
    def embed(texts):
        return [[1.0] * 384 for _ in texts]

    foreign = NewMemory(new_id("mem"), "a secret", "", datetime.now(UTC))
    write_memories(database, embed, SpaceKey(other_user.caller.account_id, other_user.caller.user_id), [foreign])
    own = NewMemory(new_id("mem"), "a guess", "", datetime.now(UTC), kind="fact", sources=[foreign.id])
    write_memories(database, embed, SpaceKey(user.caller.account_id, user.caller.user_id), [own])

    with database.connection() as connection:
        assert memory_sources.list_sources(connection, own.id, user.caller.account_id) == []


def test_searches_are_answered_while_imports_run(user, conversation):
    lines = "\n".join(json.dumps({"text": f"In week {week} we planted a tree"}) for week in range(1000))
    jobs = [user.request("POST", "/v1/memories/import", content=lines).json()["id"] for _ in range(7)]

    def states():
        return {job["id"]: job["state"] for job in user.jobs()}

    wait_until(lambda: "running" in states().values())
    assert search(user, "canoeing", limit=1)[0]["id"] == conversation[0]["id"]
    assert "queued" in states().values()  # imports beyond the process's import threads wait
    for job_id in jobs:
        user.request("POST", f"/v1/jobs/{job_id}/cancel")
    wait_until(lambda: set(states().values()) == {"cancelled"})
