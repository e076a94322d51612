"""Decisions in the input of the next turn, as in OpenAI's API: taken once, by the person who was asked."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from models.accounts.ownership import Access
from models.agents import approvals as stored
from models.turns import response_deletion, responses
from pipelines.agents.approvals import taken_by
from tests.web.api_client import ApiUser, assert_error
from tests.web.approval_requests import answer_item, request_approval, request_item

TOOL = {"type": "mcp", "server_label": "docs", "server_url": "https://mcp.example.com/"}


@pytest.fixture
def asked(user, database):
    """`asked(…)` → an approval with which a turn of the user has ended."""

    def asked(*, owner=user, expires_in=3600, **body):
        response = owner.create_response(tools=[TOOL], **body)
        return request_approval(database, owner.caller.account_id, response["id"], waits=False, expires_in=expires_in)

    return asked


@pytest.fixture
def other_user(api, database):
    other = ApiUser(api, database)
    yield other
    other.delete_account()


def send(user, *items, headers=None, **body):
    json = {"input": list(items), "background": True, "tools": [TOOL], **body}
    return user.request("POST", "/v1/responses", json=json, headers=headers)


def follow_up(user, approval, **answer):
    return send(user, answer_item(approval, **answer), previous_response_id=approval.response_id)


def taken(user, response_id):
    """Return the approvals that a turn has taken, as its worker reads them."""
    with user.database.connection() as connection:
        response = responses.read(connection, response_id, Access.account(user.caller.account_id))
        return taken_by(connection, response)


def status(user, approval):
    with user.database.connection() as connection:
        return stored.read(connection, approval.id, Access.account(user.caller.account_id)).status


@pytest.mark.parametrize(("approve", "expected"), [(True, "approved"), (False, "denied")])
def test_the_next_turn_of_a_chain_decides(user, asked, approve, expected):
    approval = asked()

    answer = follow_up(user, approval, approve=approve, reason="because")

    assert answer.status_code == 200, answer.text
    (row,) = taken(user, answer.json()["id"])
    assert (row.id, row.status, row.decided_by) == (approval.id, expected, user.caller.user_id)
    assert row.decision_text == "because"


def test_the_next_turn_of_a_conversation_decides(user, asked):
    conversation = user.request("POST", "/v1/conversations").json()["id"]
    approval = asked(conversation=conversation)

    answer = send(user, answer_item(approval), conversation=conversation)

    assert [row.id for row in taken(user, answer.json()["id"])] == [approval.id]


def test_several_decisions_are_taken_together(user, asked, database):
    first = asked()
    second = request_approval(database, user.caller.account_id, first.response_id, waits=False)

    answer = send(user, answer_item(first), answer_item(second, approve=False), previous_response_id=first.response_id)

    assert {row.id: row.status for row in taken(user, answer.json()["id"])} == {
        first.id: "approved",
        second.id: "denied",
    }


def test_without_a_conversation_the_request_is_sent_back(user, asked):
    approval = asked()

    refused = send(user, answer_item(approval))
    answer = send(user, request_item(approval), answer_item(approval))

    assert_error(refused, 400, param="input[0]", code="approval_of_other_turn")
    assert [row.id for row in taken(user, answer.json()["id"])] == [approval.id]
    items = user.request("GET", f"/v1/responses/{answer.json()['id']}/input_items?order=asc").json()["data"]
    assert items[0]["id"] == items[1]["approval_request_id"] == approval.id


def test_the_row_outlives_a_response_that_is_not_stored(user, asked, database):
    approval = asked(store=True)
    with database.connection() as connection:  # what happens to an unstored response once it was delivered
        response_deletion.delete(connection, approval.response_id, user.caller.account_id)

    answer = send(user, request_item(approval), answer_item(approval), store=True)

    (row,) = taken(user, answer.json()["id"])
    assert (row.arguments, row.status) == (approval.arguments, "approved")


@pytest.mark.parametrize("change", [{"arguments": '{"text": "y"}'}, {"name": "delete"}, {"server_label": "crm"}])
def test_a_request_that_was_changed_is_rejected(user, asked, change):
    approval = asked()

    answer = send(user, request_item(approval, **change), answer_item(approval))
    in_chain = send(
        user,
        request_item(approval, **change),
        answer_item(approval),
        previous_response_id=approval.response_id,
    )

    assert_error(answer, 400, param="input[0]", code="approval_changed")
    assert_error(in_chain, 400, param="input[0]", code="approval_changed")
    assert status(user, approval) == "pending"


def test_a_replay_is_rejected(user, asked):
    approval = asked()
    assert follow_up(user, approval).status_code == 200

    replay = follow_up(user, approval)
    denial = follow_up(user, approval, approve=False)
    elsewhere = send(user, request_item(approval), answer_item(approval))

    for answer in (replay, denial, elsewhere):
        assert_error(answer, 400, code="approval_decided")
    assert replay.json()["error"]["param"] == "input[0]"


def test_of_turns_that_decide_at_once_one_is_accepted(user, asked):
    approval = asked()

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda n: follow_up(user, approval, reason=f"number {n}"), range(8)))

    accepted = [answer for answer in answers if answer.status_code == 200]
    assert len(accepted) == 1
    assert {answer.json()["error"]["code"] for answer in answers if answer.status_code != 200} == {"approval_decided"}
    assert len(taken(user, accepted[0].json()["id"])) == 1


def test_repeats_under_one_idempotency_key_are_one_turn_and_no_replay(user, asked):
    approval = asked()
    items, headers = [answer_item(approval)], {"Idempotency-Key": f"key of {approval.id}".replace(" ", "-")}

    def repeat(_):
        return send(user, *items, previous_response_id=approval.response_id, headers=headers)

    with ThreadPoolExecutor(4) as pool:
        answers = [*pool.map(repeat, range(4)), repeat(None)]

    assert {answer.status_code for answer in answers} == {200}, [answer.text for answer in answers]
    assert len({answer.json()["id"] for answer in answers}) == 1


def test_two_decisions_on_one_request_are_rejected(user, asked):
    approval = asked()

    answer = send(
        user,
        answer_item(approval),
        answer_item(approval, approve=False),
        previous_response_id=approval.response_id,
    )

    assert_error(answer, 400, param="input[1]", code="approval_decided")
    assert status(user, approval) == "pending"


def test_another_conversation_cannot_decide(user, asked):
    approval, other = asked(), asked()
    conversation = user.request("POST", "/v1/conversations").json()["id"]

    in_chain = send(user, request_item(approval), answer_item(approval), previous_response_id=other.response_id)
    in_conversation = send(user, request_item(approval), answer_item(approval), conversation=conversation)

    for answer in (in_chain, in_conversation):
        assert_error(answer, 400, param="input[1]", code="approval_of_other_turn")
    assert status(user, approval) == "pending"


def test_another_account_and_another_member_cannot_decide(user, asked, other_user, database):
    approval = asked()
    with database.connection() as connection:
        connection.execute(
            "INSERT INTO memberships (account_id, user_id, role) VALUES (%s, %s, 'owner')",
            (user.caller.account_id, other_user.caller.user_id),
        )
    member = ApiUser.__new__(ApiUser)
    member.client, member.database = user.client, database
    member.caller = type(user.caller)(
        other_user.caller.user_id, user.caller.account_id, user.caller.role, session_id=other_user.caller.session_id
    )
    member.token = user.client.app.state.platform.tokens.issue(member.caller)

    for somebody in (other_user, member):
        answer = send(somebody, request_item(approval), answer_item(approval))
        assert_error(answer, 400, param="input[1].approval_request_id", code="approval_not_found")
    assert status(user, approval) == "pending"


def test_a_turn_without_the_tools_of_the_approved_call_is_rejected(user, asked):
    approval = asked()

    refused = send(user, answer_item(approval), previous_response_id=approval.response_id, tools=[])
    denied = send(user, answer_item(approval, approve=False), previous_response_id=approval.response_id, tools=[])

    assert_error(refused, 400, param="input[0]", code="approval_without_server")
    assert denied.status_code == 200, "nothing has to be called"


def test_an_expired_request_is_rejected(user, asked):
    assert_error(follow_up(user, asked(expires_in=-1)), 400, param="input[0]", code="approval_expired")


def test_a_request_that_a_turn_waits_for_is_not_decided_by_another_turn(user, database):
    response = user.create_response()
    approval = request_approval(database, user.caller.account_id, response["id"], waits=True)

    answer = send(user, request_item(approval), answer_item(approval))

    message = assert_error(answer, 400, param="input[1]", code="approval_of_waiting_turn")
    assert f"/v1/approvals/{approval.id}" in message


def test_earlier_decisions_in_a_history_that_is_sent_back_take_nothing(user, asked):
    approved, denied = asked(), asked()
    follow_up(user, approved)
    follow_up(user, denied, approve=False)
    call = {"type": "mcp_call", "id": "mcp_1", "server_label": "docs", "name": "send", "arguments": "{}",
            "output": "sent", "approval_request_id": approved.id}  # fmt: skip

    answer = send(
        user,
        request_item(approved), answer_item(approved), call,
        request_item(denied), answer_item(denied, approve=False),
        {"role": "user", "content": "And now?"},
    )  # fmt: skip

    assert answer.status_code == 200, answer.text
    assert taken(user, answer.json()["id"]) == []


def test_a_deleted_response_takes_its_requests_with_it(user, asked):
    approval = asked()
    user.request("DELETE", f"/v1/responses/{approval.response_id}")

    answer = send(user, request_item(approval), answer_item(approval))

    assert_error(answer, 400, param="input[1].approval_request_id", code="approval_not_found")


def test_a_schedule_gives_no_approvals(user, asked):
    approval = asked()
    body = {
        "name": "hourly",
        "trigger": {"type": "interval", "seconds": 3600},
        "work": {"kind": "turn", "request": {"input": [request_item(approval), answer_item(approval)]}},
    }

    assert_error(user.request("POST", "/v1/schedules", json=body), 400, param="work.request.input")
