"""OpenAI's unmodified client names files in messages; a real worker reads them, and counts their tokens."""

import base64

import openai
import pytest
from openai.types.chat import ChatCompletion
from openai.types.conversations import Message
from openai.types.responses import ResponseItemList
from pydantic import TypeAdapter

from tests.pipelines.files.test_texts import pdf_of
from tests.web.api_client import assert_error

POOL = "inference"

#: The question, and what a file of three words adds: its name, its end, and the words.
QUESTION, QUESTION_TOKENS, FILE_TOKENS = "What is this?", 3, 6


def asking(*parts):
    return [{"role": "user", "content": [*parts, {"type": "input_text", "text": QUESTION}]}]


def data_url(content, content_type="application/pdf"):
    return f"data:{content_type};base64,{base64.b64encode(content).decode()}"


@pytest.fixture
def file(client):
    return client.files.create(file=("notes.md", b"three words here"), purpose="user_data")


def test_response_reads_an_uploaded_file(client, file):
    response = client.responses.create(
        model="default", input=asking({"type": "input_file", "file_id": file.id}), store=True
    )

    assert response.status == "completed"
    assert response.usage.input_tokens == QUESTION_TOKENS + FILE_TOKENS
    answer = client.responses.input_items.with_raw_response.list(response.id)
    items = TypeAdapter(ResponseItemList).validate_python(answer.http_response.json())
    assert items.data[0].content[0].model_dump(exclude_none=True) == {
        "type": "input_file",
        "file_id": file.id,
        "filename": "notes.md",
    }


@pytest.mark.parametrize("as_url", [True, False])
def test_response_reads_a_pdf_in_the_request(client, as_url):
    content = pdf_of("three words here")
    data = data_url(content) if as_url else base64.b64encode(content).decode()

    response = client.responses.create(
        model="default", input=asking({"type": "input_file", "filename": "a.pdf", "file_data": data})
    )

    assert response.usage.input_tokens == QUESTION_TOKENS + FILE_TOKENS


def test_later_turns_and_conversations_read_the_file(client, file):
    part = {"type": "input_file", "file_id": file.id}
    conversation = client.conversations.create(items=asking(part))

    first = client.responses.create(model="default", input="And now?", conversation=conversation.id)
    second = client.responses.create(model="default", input=asking(part), store=True)
    third = client.responses.create(model="default", input="And now?", previous_response_id=second.id)

    item = client.conversations.items.list(conversation.id, order="asc").data[0]
    TypeAdapter(Message).validate_python(item.model_dump())
    assert first.usage.input_tokens == QUESTION_TOKENS + FILE_TOKENS + 2
    assert third.usage.input_tokens == QUESTION_TOKENS + FILE_TOKENS + 20 + 2


def test_tokens_of_a_file_are_counted_before(client, file):
    counted = client.responses.input_tokens.count(
        model="default", input=asking({"type": "input_file", "file_id": file.id})
    )

    assert counted.input_tokens == QUESTION_TOKENS + FILE_TOKENS


@pytest.mark.parametrize("by_id", [True, False])
def test_chat_completion_reads_a_file(client, file, by_id):
    fields = {"file_id": file.id} if by_id else {"filename": "a.pdf", "file_data": data_url(pdf_of("three words here"))}
    messages = [
        {"role": "user", "content": [{"type": "text", "text": QUESTION}, {"type": "file", "file": fields}]},
    ]

    completion = client.chat.completions.create(model="default", messages=messages)

    TypeAdapter(ChatCompletion).validate_python(completion.model_dump())
    assert completion.usage.prompt_tokens == QUESTION_TOKENS + FILE_TOKENS


def test_unknown_file_is_not_found_by_its_parameter(client):
    with pytest.raises(openai.NotFoundError) as of_response:
        client.responses.create(model="default", input=asking({"type": "input_file", "file_id": "file_none"}))
    messages = [
        {"role": "system", "content": "Be kind."},
        {"role": "assistant", "content": "Hello.", "reasoning_content": "An item of its own."},
        {"role": "user", "content": [{"type": "file", "file": {"file_id": "file_none"}}]},
    ]
    with pytest.raises(openai.NotFoundError) as of_completion:
        client.chat.completions.create(model="default", messages=messages)

    assert of_response.value.param == "input[0].content[0].file_id"
    assert of_completion.value.param == "messages[2].content[0].file.file_id"


def test_file_that_was_deleted_after_a_turn_leaves_a_note(client, file):
    first = client.responses.create(
        model="default", input=asking({"type": "input_file", "file_id": file.id}), store=True
    )
    client.files.delete(file.id)

    second = client.responses.create(model="default", input="And now?", previous_response_id=first.id)

    assert second.status == "completed"


def test_pdf_without_a_text_is_an_error_of_the_request(client):
    encrypted = {"filename": "a.pdf", "file_data": data_url(b"%PDF-1.7 nonsense")}

    with pytest.raises(openai.BadRequestError, match=r"'a\.pdf' cannot be read") as failure:
        client.chat.completions.create(
            model="default", messages=[{"role": "user", "content": [{"type": "file", "file": encrypted}]}]
        )
    response = client.responses.create(model="default", input=asking({"type": "input_file", **encrypted}))

    assert failure.value.code == "unreadable_file"
    assert (response.status, response.error.code) == ("failed", "invalid_prompt")


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        ({}, "either 'file_id' or 'file_data'"),
        ({"file_id": "file_1", "file_data": "aGk="}, "either 'file_id' or 'file_data'"),
        ({"file_data": "a data: URL"}, "should be a data URL with base64"),
        ({"file_data": "data:text/plain;base64,größe"}, "should be a data URL with base64"),
        ({"file_data": data_url(b"\x89PNG\r\n\x1a\n", "text/plain")}, "its type is image/png"),
        ({"file_url": "https://example.com/a.pdf"}, "file_url"),
        ({"file_id": "file_1", "filename": "x" * 256}, "filename"),
    ],
)
def test_invalid_part_is_rejected_by_parameter(user, part, reason):
    answer = user.request("POST", "/v1/responses", json={"input": asking({"type": "input_file", **part})})

    assert answer.status_code == 400
    assert answer.json()["error"]["param"].startswith("input[0].content[0]")
    assert reason in answer.json()["error"]["message"]


def test_image_is_rejected_with_its_type_when_the_turn_is_accepted(user, client):
    image = client.files.create(file=("notes.txt", b"\x89PNG\r\n\x1a\n"), purpose="user_data")

    answer = user.request("POST", "/v1/responses", json={"input": asking({"type": "input_file", "file_id": image.id})})

    message = assert_error(answer, 400, param="input[0].content[0].file_id", code="unsupported_file")
    assert "its type is image/png" in message


def test_files_are_refused_until_all_workers_read_them(user, monkeypatch):
    monkeypatch.setattr("web.api.turns.started_turn.FILES_SINCE", "9999")

    answer = user.request("POST", "/v1/responses", json={"input": asking({"type": "input_file", "file_id": "file_1"})})

    assert_error(answer, 503)
