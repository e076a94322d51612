"""Given an account's data, when it is exported, then one file has all of it, and nothing of other accounts."""

import io
import zipfile

import orjson
import pytest

from models.accounts import account_exports, files
from models.accounts.files import FileAccess
from models.jobs.jobs import NewJob
from models.platform.errors import Cancelled
from models.platform.ids import new_id
from models.platform.object_store import ObjectStore
from models.platform.settings import Settings
from models.turns import conversations
from pipelines.files.content import read_content
from pipelines.reporting import export


@pytest.fixture
def objects(tmp_path):
    return ObjectStore.open(Settings(data_dir=tmp_path))


def insert_conversation(database, account, text):
    with database.transaction() as connection:
        conversation = conversations.create(connection, new_id("conv"), account, new_id("user"), {"about": text})
        item = {
            "id": new_id("msg"),
            "type": "message",
            "role": "user",
            "content": [{"type": "input_text", "text": text}],
        }
        conversations.add_items(connection, conversation.id, [item])
    return conversation.id


def read_zip(database, objects, account, result):
    with database.connection() as connection:
        file = files.read(connection, result["file_id"], FileAccess(account, None, admin=True))
    assert file is not None
    with zipfile.ZipFile(io.BytesIO(b"".join(read_content(objects, file)))) as archive:
        return {name: [orjson.loads(line) for line in archive.read(name).splitlines()] for name in archive.namelist()}


def test_an_export_has_all_tables_and_only_the_accounts_rows(database, objects, account, begin, settle):
    conversation_id = insert_conversation(database, account, "mine")
    other = new_id("acct")
    with database.connection() as connection:
        connection.execute("INSERT INTO accounts (id, name) VALUES (%s, 'another')", (other,))
    insert_conversation(database, other, "not mine")
    attempt = begin(NewJob("account.export", account))

    ending = export.run(objects, attempt)
    settle(attempt, ending)

    content = read_zip(database, objects, account, ending.result)
    assert set(content) == {f"{name}.jsonl" for name in account_exports.EXPORTS}
    assert [row["id"] for row in content["conversations.jsonl"]] == [conversation_id]
    assert [row["item"]["content"][0]["text"] for row in content["conversation_items.jsonl"]] == ["mine"]
    assert [row["id"] for row in content["account.jsonl"]] == [account]
    assert sum(len(rows) for rows in content.values()) == ending.result["rows"]


def test_a_repeated_attempt_leaves_one_file(database, objects, account, begin, settle):
    job = NewJob("account.export", account)
    first = export.run(objects, begin(job))  # its worker dies before the end is recorded
    attempt = begin(job)

    second = export.run(objects, attempt)
    settle(attempt, second)

    assert first.result["file_id"] == second.result["file_id"]
    with database.connection() as connection:
        assert [file.id for file in files.page(connection, FileAccess(account, None, admin=True))] == [
            second.result["file_id"]
        ]


def test_a_cancelled_export_stops_and_leaves_no_file(database, objects, account, begin):
    attempt = begin(NewJob("account.export", account))
    attempt.stop("cancelled")

    with pytest.raises(Cancelled):
        export.run(objects, attempt)

    with database.connection() as connection:
        assert files.page(connection, FileAccess(account, None, admin=True)) == []


#: Postgres types that can be written as JSON; the `sum` of bigints (numeric) cannot.
JSON_TYPES = {
    "text",
    "json",
    "jsonb",
    "timestamptz",
    "date",
    "bool",
    "int2",
    "int4",
    "int8",
    "float4",
    "float8",
    "text[]",
}


@pytest.mark.parametrize("name", account_exports.EXPORTS)
def test_every_exported_column_can_be_written_as_json(database, account, name):
    with database.connection() as connection:
        cursor = connection.execute(account_exports.EXPORTS[name], {"account_id": account})
        types = {column.name: column.type_display for column in cursor.description}

    assert {column: kind for column, kind in types.items() if kind not in JSON_TYPES} == {}
