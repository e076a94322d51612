"""Batches stay within the limits of their account, and do not use up those of its other work."""

import json
from dataclasses import replace

import pytest

from models.accounts.plans import Limits
from models.billing import spending
from models.jobs.quota import check_unfinished_jobs, monthly_usage
from models.platform.errors import InvalidRequest, LimitExceeded, NotFound, TooLarge
from pipelines.batches import requested_batches
from pipelines.requests.lines import LINE_ENDPOINTS
from tests.pipelines.batches.conftest import request_line


def set_limits(user_batches, **limits):
    with user_batches.database.connection() as connection:
        connection.execute(
            "UPDATE accounts SET limits = %s::jsonb WHERE id = %s",
            (json.dumps(limits), user_batches.caller.account_id),
        )


def use_tokens(user_batches, tokens):
    with user_batches.database.connection() as connection:
        connection.execute(
            "INSERT INTO quota_usage (account_id, month, slot, tokens)"
            " VALUES (%s, date_trunc('month', now() AT TIME ZONE 'UTC')::date, 0, %s)",
            (user_batches.caller.account_id, tokens),
        )


def test_lines_do_not_count_as_unfinished_jobs(user_batches):
    # Given a plan with two unfinished jobs, and a batch of five lines that run
    set_limits(user_batches, unfinished_jobs=2, unfinished_bytes=10_000)
    batch = user_batches.look(user_batches.create(5))
    assert batch.running_lines == 5

    # Then the account has room for one more job, and the batch completes
    with user_batches.database.connection() as connection:
        check_unfinished_jobs(connection, batch.account_id, Limits(unfinished_jobs=2))
        with pytest.raises(LimitExceeded):
            check_unfinished_jobs(connection, batch.account_id, Limits(unfinished_jobs=1))
    assert user_batches.finish(batch).completed_lines == 5


def test_no_more_batches_are_created_than_the_account_may_have_unfinished_jobs(make_batches):
    user_batches = make_batches(limits=Limits(unfinished_jobs=1))
    user_batches.create(1)

    with pytest.raises(LimitExceeded):
        user_batches.create(1)


def test_lines_wait_for_tokens_that_other_lines_have_reserved(user_batches):
    # Given a month with room for two lines at a time
    limited = [request_line(number, body={"input": "x", "max_output_tokens": 100}) for number in range(1, 6)]
    set_limits(user_batches, tokens_per_month=100_000)
    batch = user_batches.look(user_batches.create(b"\n".join(limited)))
    with user_batches.database.connection() as connection:
        each = monthly_usage(connection, batch.account_id).reserved // 5
    user_batches.finish(batch)
    with user_batches.database.connection() as connection:
        used = monthly_usage(connection, batch.account_id).used
    set_limits(user_batches, tokens_per_month=used + 2 * each + each // 2)

    # When a batch of five begins
    batch = user_batches.look(user_batches.create(b"\n".join(limited)))

    # Then two run, and the others when these have ended
    assert batch.running_lines == 2
    batch = user_batches.finish(batch)
    assert (batch.completed_lines, batch.failed_lines) == (5, 0)


def test_lines_for_which_the_month_has_no_room_are_errors_and_the_batch_completes(user_batches):
    set_limits(user_batches, tokens_per_month=1000)
    use_tokens(user_batches, 1000)

    batch = user_batches.finish(user_batches.create(4))

    assert (batch.status, batch.completed_lines, batch.failed_lines) == ("completed", 0, 4)
    assert batch.output_file_id is None
    errors = user_batches.content(batch.error_file_id)
    assert {line["response"]["status_code"] for line in errors} == {429}
    assert {line["response"]["body"]["error"]["type"] for line in errors} == {"insufficient_quota"}


def test_lines_reserve_money_at_the_batch_price(user_batches, monkeypatch):
    reserved = []
    real = spending.reserve
    monkeypatch.setattr(
        "pipelines.batches.begin_lines.reserve",
        lambda connection, account_id, most, **options: (
            reserved.append(most), real(connection, account_id, most, **options),
        ),
    )  # fmt: skip
    with user_batches.database.connection() as connection:
        connection.execute("UPDATE accounts SET billed_since = now() WHERE id = %s", (user_batches.caller.account_id,))

    batch = user_batches.finish(user_batches.create(2))

    assert batch.completed_lines == 2
    (most,) = reserved
    assert {each.service_class for each in most.values()} == {"batch"}


def test_model_that_the_key_may_not_use_is_an_error_of_the_line(make_batches):
    user_batches = make_batches(limits=Limits(models=["another-model"]))
    user_batches.caller = replace(user_batches.caller, key_id="key_1")

    batch = user_batches.finish(user_batches.create(1))

    (error,) = user_batches.content(batch.error_file_id)
    assert error["response"]["status_code"] == 403
    assert error["response"]["body"]["error"]["code"] == "model_not_allowed"


@pytest.mark.parametrize("window", ["", "h", "0h", "24", "15d", "30s", "24H", "-1h", "9999999h"])
def test_completion_window_is_checked(user_batches, window):
    with pytest.raises(InvalidRequest) as raised:
        user_batches.create(1, completion_window=window)
    assert raised.value.param == "completion_window"


def test_file_of_others_or_another_purpose_or_too_large_is_rejected(user_batches, make_batches, monkeypatch):
    others = make_batches().store_input(request_line(1))
    create = requested_batches.create_batch
    options = {"batch_id": "batch_1", "job_id": "job_1", "endpoint": LINE_ENDPOINTS[0]}

    with pytest.raises(NotFound):
        create(user_batches.database, user_batches.caller, Limits(), input_file_id=others, **options)
    with pytest.raises(InvalidRequest):
        create(
            user_batches.database, user_batches.caller, Limits(), **options,
            input_file_id=user_batches.store_input(request_line(1), purpose="user_data"),
        )  # fmt: skip
    monkeypatch.setattr(requested_batches, "MAX_FILE_BYTES", 10)
    with pytest.raises(TooLarge):
        user_batches.create(1)
    with pytest.raises(InvalidRequest):
        user_batches.create(1, endpoint="/v1/models")
