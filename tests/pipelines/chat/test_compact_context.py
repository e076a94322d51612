"""A compacted conversation keeps instructions, the latest user messages and open calls; the rest is quoted."""

from pipelines.chat.compact_context import compact
from pipelines.chat.compaction import read_compaction


def message(role, text):
    return {"type": "message", "role": role, "content": [{"text": text}]}


def call(call_id):
    return {"type": "function_call", "call_id": call_id, "name": "look_up", "arguments": '{"of":"' + call_id + '"}'}


def result(call_id, text):
    return {"type": "function_call_output", "call_id": call_id, "output": text}


def compacted(engine, *items):
    """Return the compaction, and the items after it."""
    compaction, *others = compact(engine, items, "cmp_1")
    assert compaction["id"] == "cmp_1"
    return read_compaction(compaction["encrypted_content"]), others


def quoted(compaction):
    return [(quote.speaker, quote.text) for quote in compaction.quotes]


def test_instructions_and_user_messages_are_kept_and_all_else_is_quoted(fake_engine):
    rules = message("system", "Be brief.")
    question, more = message("user", "Where is Rome?"), message("user", "And Oslo?")
    answer = message("assistant", "Rome is in Italy.")

    compaction, others = compacted(
        fake_engine(), rules, question, answer, call("oslo"), result("oslo", "In Norway."), more
    )

    assert (compaction.kept, others) == ([rules, question, more], [])
    assert quoted(compaction) == [
        ("assistant", "Rome is in Italy."), ("call of look_up", '{"of":"oslo"}'), ("result of look_up", "In Norway."),
    ]  # fmt: skip


def test_a_call_without_an_output_follows_the_compaction(fake_engine):
    _, others = compacted(
        fake_engine(), message("user", "Look it up."), call("done"), result("done", "x"), call("open")
    )

    assert others == [call("open")]


def test_calls_that_the_server_ran_are_quoted_and_undecided_requests_follow(fake_engine):
    def request(id_):
        return {"type": "mcp_approval_request", "id": id_, "server_label": "shop", "name": "buy", "arguments": "{}"}

    bought = {"type": "mcp_call", "id": "mcp_1", "server_label": "shop", "name": "buy", "arguments": '{"n":1}',
              "output": "done", "error": None, "status": "completed"}  # fmt: skip
    denial = {"type": "mcp_approval_response", "id": "mcpa_1", "approval_request_id": "mcpr_1", "approve": False,
              "reason": "too much"}  # fmt: skip
    thought = {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm."}]}
    listing = {"type": "mcp_list_tools", "id": "mcpl_1", "server_label": "shop", "tools": [], "error": None}

    compaction, others = compacted(
        fake_engine(), message("user", "Buy."), listing, thought, bought, request("mcpr_1"), denial, request("mcpr_2")
    )

    assert quoted(compaction) == [
        ("call of shop__buy", '{"n":1}'), ("result of shop__buy", "done"), ("call of shop__buy", "{}"),
        ("result of shop__buy", "Error: A person has denied this call: too much"),
    ]  # fmt: skip
    assert others == [request("mcpr_2")]


def test_user_messages_that_do_not_fit_are_quoted(fake_engine):
    """The latest ones stay whole up to a quarter of the context, here 25 words."""
    old, new = message("user", "My old locker has the code 1938."), message("user", "and so on " * 7)

    compaction, _ = compacted(fake_engine(context=100), old, new)

    assert compaction.kept == [new]
    assert quoted(compaction) == [("user", "My old locker has the code 1938.")]


def test_an_earlier_compaction_is_compacted_again(fake_engine):
    first = compact(
        fake_engine(), [message("user", "Where is Rome?"), message("assistant", "Rome is in Italy.")], "cmp_0"
    )

    second, _ = compacted(fake_engine(), *first, message("assistant", "Oslo is in Norway."))

    assert second.kept == [message("user", "Where is Rome?")]
    assert quoted(second) == [("assistant", "Rome is in Italy."), ("assistant", "Oslo is in Norway.")]


def test_a_conversation_of_user_messages_needs_no_quotes(fake_engine):
    compaction, _ = compacted(fake_engine(), message("user", "Hello."))

    assert (compaction.kept, compaction.quotes) == ([message("user", "Hello.")], [])
