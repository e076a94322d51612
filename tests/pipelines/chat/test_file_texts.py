"""Given files in a turn's input, when its prompt is assembled, then it has their texts, or the turn fails clearly."""

import base64
import io

import pytest
from pydantic import TypeAdapter

from models.accounts import accounts, files, members
from models.accounts.accounts import Caller, Role
from models.accounts.files import FileAccess
from models.accounts.plans import Limits
from models.platform.errors import InvalidRequest, NotFound, PermanentFailure, Unavailable
from models.platform.ids import new_id
from models.platform.object_store import ObjectStore
from models.platform.settings import Settings
from pipelines.chat import compact_context, file_texts, input_files, token_count, turn
from pipelines.chat.compaction import read_compaction
from pipelines.chat.file_texts import FileTexts
from pipelines.chat.prompt_jobs import PromptRequest, enqueue_prompt_job
from pipelines.files.deletion import delete_file
from pipelines.files.store import store_file
from pipelines.memory.remember_turns import memories_of_turn
from pipelines.requests.input_items import InputItems, stored_items
from tests.accounts import delete_accounts
from tests.pipelines.files.test_texts import pdf_of


@pytest.fixture
def objects(tmp_path):
    return ObjectStore.open(Settings(data_dir=tmp_path))


@pytest.fixture
def upload(database, harness, objects):
    """`upload(content)` → the id of a file of the user."""

    def upload(content, *, user_id=None, audience="user", content_type="text/plain", filename="notes.txt"):
        return store_file(
            database,
            objects,
            account_id=harness.caller.account_id,
            user_id=user_id or harness.caller.user_id,
            file_id=new_id("file"),
            filename=filename,
            purpose="user_data",
            content_type=content_type,
            content=io.BytesIO(content),
            audience=audience,
            days=None,
            job_id=None,
        ).id

    return upload


@pytest.fixture
def texts(objects):
    return FileTexts(objects)


def message(*parts, question="What does it say?"):
    content = [*parts, {"type": "input_text", "text": question}]
    return {"type": "message", "role": "user", "content": content}


def named(file_id, index=0):
    return {"type": "input_file", "file_id": file_id, "param": f"input[0].content[{index}]"}


def with_content(content, filename="notes.txt"):
    data = base64.b64encode(content).decode()
    return {"type": "input_file", "file_data": data, "filename": filename, "param": "input[0].content[0]"}


def run(harness, started, engine, texts):
    attempt = harness.attempt(started)
    harness.settle(attempt, turn.run(engine, attempt, file_texts=texts))
    return harness.stored_response(started)


def delete(database, objects, harness, file_id):
    with database.connection() as connection:
        file = files.read(connection, file_id, FileAccess(harness.caller.account_id, None, admin=True))
    delete_file(database, objects, file)


def test_prompt_has_the_texts_of_files_before_the_question(harness, fake_engine, upload, texts):
    engine = fake_engine("ok")
    pdf = upload(pdf_of("from a pdf"), content_type="application/pdf", filename="a.pdf")
    parts = [named(upload(b"from a text")), named(pdf, 1), with_content(b"from the request", 'a"b.txt')]
    started = harness.start(items=[message(*parts)])

    response = run(harness, started, engine, texts)

    (prompt,) = engine.prompts[0]
    assert prompt.content == (
        '<file name="notes.txt">\nfrom a text\n</file>\n<file name="a.pdf">\nfrom a pdf\n</file>\n'
        '<file name="a\'b.txt">\nfrom the request\n</file>\nWhat does it say?'
    )
    assert response.status == "completed"
    assert response.usage["input_tokens"] == len(prompt.content.split())


def test_stored_input_has_the_name_of_a_file_and_not_its_text(harness, fake_engine, upload, texts):
    file_id = upload(b"from a text")
    started = harness.start(items=[message(named(file_id))])

    response = run(harness, started, fake_engine("ok"), texts)

    assert response.input[0]["content"][0] == {"type": "input_file", "file_id": file_id, "filename": "notes.txt"}
    assert [memory.text for memory in memories_of_turn(response)] == ["What does it say?", "ok"]


def test_later_turns_have_the_file_and_a_note_once_it_is_deleted(
    harness, fake_engine, upload, texts, database, objects
):
    engine, file_id = fake_engine("ok"), upload(b"from a text")
    first = harness.start(items=[message(named(file_id))])
    run(harness, first, engine, texts)

    second = harness.start("And now?", previous=first.response.id)
    run(harness, second, engine, texts)
    delete(database, objects, harness, file_id)
    third = harness.start("And then?", previous=second.response.id)
    response = run(harness, third, engine, texts)

    assert "from a text" in engine.prompts[1][0].content
    assert engine.prompts[2][0].content.startswith(f"[The file notes.txt is missing: {file_id} was deleted or has")
    assert "from a text" not in str(engine.prompts[2])
    assert response.status == "completed"


def test_turn_fails_clearly_if_its_file_is_deleted_before_it_runs(
    harness, fake_engine, upload, texts, database, objects
):
    file_id = upload(b"from a text")
    started = harness.start(items=[message(named(file_id))])
    delete(database, objects, harness, file_id)

    with pytest.raises(PermanentFailure, match=rf"'notes.txt' cannot be read: {file_id} was deleted") as failure:
        turn.run(fake_engine("ok"), harness.attempt(started), file_texts=texts)

    assert failure.value.code == "unreadable_file"


def test_attempt_after_a_crash_has_the_same_prompt(harness, fake_engine, upload, objects):
    engine = fake_engine("one ", "two")
    started = harness.start(items=[message(named(upload(b"from a text")))])
    first = harness.attempt(started)
    engine.error = OSError("killed")
    with pytest.raises(OSError, match="killed"):
        turn.run(engine, first, file_texts=FileTexts(objects))
    harness.crash_worker(first)
    engine.error = None

    run(harness, started, engine, FileTexts(objects))

    assert engine.prompts[0] == engine.prompts[1]
    assert engine.prefixes[1] == "one two"


def test_object_store_outage_is_no_failure_of_the_turn(harness, fake_engine, upload, texts, monkeypatch):
    started = harness.start(items=[message(named(upload(b"from a text")))])

    def unavailable(*args):
        raise Unavailable("the object store is unavailable")

    monkeypatch.setattr("pipelines.files.texts.read_content", unavailable)

    with pytest.raises(Unavailable):
        turn.run(fake_engine("ok"), harness.attempt(started), file_texts=texts)


def test_text_is_read_once_for_many_turns(harness, fake_engine, upload, texts, monkeypatch):
    reads = []
    real = file_texts.read_text
    monkeypatch.setattr(file_texts, "read_text", lambda *args: reads.append(args) or real(*args))
    file_id = upload(b"from a text")

    for _ in range(3):
        run(harness, harness.start(items=[message(named(file_id))]), fake_engine("ok"), texts)

    assert len(reads) == 1


def test_cache_drops_the_oldest_texts(texts, monkeypatch):
    monkeypatch.setattr(file_texts, "MAX_CACHED", 10)
    reads = []

    def text_of(key):
        return texts._cache.get(key, lambda: reads.append(key) or key * 4)

    for key in "abacab":
        assert text_of(key) == key * 4

    assert reads == ["a", "b", "c", "b"]


def test_oldest_files_of_a_conversation_are_left_out_if_they_are_too_long(
    harness, fake_engine, upload, texts, monkeypatch
):
    monkeypatch.setattr(file_texts, "MAX_CHARACTERS", 15)
    engine, first_id, second_id = fake_engine("ok"), upload(b"old text"), upload(b"new text")
    first = harness.start(items=[message(named(first_id))])
    run(harness, first, engine, texts)

    second = harness.start(items=[message(named(second_id))], previous=first.response.id)
    run(harness, second, engine, texts)

    assert "old text" not in engine.prompts[1][0].content
    assert "new text" in engine.prompts[1][2].content


@pytest.fixture
def other_user(harness, database):
    """The id of another member of the account."""
    with database.transaction() as connection:
        other = accounts.create(connection, email=f"{new_id('me')}@example.com", password_hash=None)
        members.add(connection, harness.caller.account_id, other.user_id, Role.MEMBER)
    yield other.user_id
    delete_accounts(database, [other.account_id], [other.user_id])


def test_private_file_of_another_member_is_not_found_by_its_parameter(harness, upload, other_user):
    private, shared = upload(b"private", user_id=other_user), upload(b"shared", user_id=other_user, audience="account")
    harness.caller = Caller(harness.caller.user_id, harness.caller.account_id, Role.MEMBER)

    with pytest.raises(NotFound, match=private) as failure:
        harness.start(items=[message(named(shared), named(private, 1))])

    assert failure.value.param == "input[0].content[1].file_id"


def test_file_of_another_account_is_not_found(harness, upload, account):
    file_id = upload(b"from a text", audience="account")
    harness.caller = Caller(harness.caller.user_id, account, Role.OWNER)

    with pytest.raises(NotFound, match=file_id):
        harness.start(items=[message(named(file_id))])


@pytest.mark.parametrize(
    ("content_type", "size", "reason"),
    [("image/png", 4, "its type is image/png"), ("text/plain", (8 << 20) + 1, "at most 8,388,608 are read")],
)
def test_file_without_a_text_is_refused_when_the_turn_is_accepted(harness, upload, content_type, size, reason):
    file_id = upload(b"x" * size, content_type=content_type)

    with pytest.raises(InvalidRequest, match=reason) as failure:
        harness.start(items=[message(named(file_id))])

    assert (failure.value.param, failure.value.code) == ("input[0].content[0].file_id", "unsupported_file")


@pytest.mark.parametrize(("limit", "value"), [("MAX_FILES", 1), ("MAX_BYTES", 5)])
def test_files_of_an_input_are_limited(harness, upload, monkeypatch, limit, value):
    monkeypatch.setattr(input_files, limit, value)

    with pytest.raises(InvalidRequest, match=f"the maximum is {value}"):
        harness.start(items=[message(named(upload(b"one")), named(upload(b"two"), 1))])


@pytest.mark.parametrize("kind", [token_count.KIND, compact_context.KIND])
def test_jobs_about_a_prompt_read_its_files(harness, fake_engine, upload, texts, database, kind):
    prompt = PromptRequest(
        {"model": "fake", "instructions": None}, [message(named(upload(b"from a text"))), message(question="Next?")]
    )
    job_id = new_id("job")
    enqueue_prompt_job(database, harness.caller, kind, prompt, job_id, Limits())
    attempt = harness.claim(job_id)
    module = {token_count.KIND: token_count, compact_context.KIND: compact_context}[kind]

    result = module.run(fake_engine(), attempt, texts).result

    if kind == token_count.KIND:
        texts_of_messages = '<file name="notes.txt">\nfrom a text\n</file>\nWhat does it say?', "Next?"
        assert result["input_tokens"] == sum(len(text.split()) for text in texts_of_messages)
    else:
        kept = read_compaction(result["output"][0]["encrypted_content"]).kept
        assert "from a text" in str(kept)


def test_items_of_requests_keep_files_and_the_names_of_their_parameters():
    items = TypeAdapter(InputItems).validate_python(
        [{"role": "user", "content": [{"type": "input_file", "file_id": "file_1"}]}]
    )

    assert stored_items(items, "items")[0]["content"] == [
        {"type": "input_file", "file_id": "file_1", "param": "items[0].content[0]"}
    ]
