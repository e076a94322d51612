"""`GET /v1/account/usage`: the month, and reports by day, model, key, member and agent."""

import random
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest

from models.accounts.accounts import Scope
from models.platform.ids import new_id
from pipelines.schedules import cron
from tests.web.api_client import assert_error

PATH = "/v1/account/usage"

INSERT = """
INSERT INTO usage_records (job_id, account_id, model, input_tokens, cached_tokens, output_tokens, billed_amount,
                           billed_currency, billed_user_id, billed_key_id, created_at)
VALUES (%s, %s, %s, 100, 40, 10, %s, 'USD', %s, %s, %s)
"""

PERIOD = {"start": int(datetime(2026, 3, 1, tzinfo=UTC).timestamp()),
          "end": int(datetime(2026, 4, 1, tzinfo=UTC).timestamp())}  # fmt: skip


@pytest.fixture
def use(database):
    """`use(account_id, …)` inserts a usage record of March 2026."""

    def use(account_id, *, model="m", amount="0.5", user_id=None, key_id=None, day=1, hour=0):
        moment = datetime(2026, 3, day, hour, tzinfo=UTC)
        with database.connection() as connection:
            connection.execute(INSERT, (new_id("job"), account_id, model, amount, user_id, key_id, moment))

    return use


def report(user, **query):
    answer = user.request("GET", PATH, params={**PERIOD, **query})
    assert answer.status_code == 200, answer.text
    return answer.json()["report"]


def rows(found):
    return [(row["key"], row["jobs"], row["input_tokens"], row["amount"]) for row in found["data"]]


@pytest.mark.parametrize(
    ("group_by", "expected"),
    [
        ("day", [("2026-03-01", 2, 200, "1.00"), ("2026-03-31", 1, 100, "0.000001")]),
        ("model", [("a", 2, 200, "0.500001"), ("b", 1, 100, "0.50")]),
        ("key", [(None, 2, 200, "1.00"), ("key_1", 1, 100, "0.000001")]),
        ("agent", [(None, 3, 300, "1.000001")]),
    ],
)
def test_usage_is_grouped_with_exact_amounts(user, use, group_by, expected):
    account_id = user.caller.account_id
    use(account_id, model="a")
    use(account_id, model="b", hour=23)
    use(account_id, model="a", key_id="key_1", day=31, hour=23, amount="0.000001")

    assert rows(report(user, group_by=group_by)) == expected


def test_other_accounts_and_periods_are_left_out(user, other_user, use):
    use(other_user.caller.account_id)
    use(user.caller.account_id, day=15)

    assert rows(report(user, group_by="model")) == [("m", 1, 100, "0.50")]
    assert report(user, group_by="model", end=PERIOD["start"] + 60)["data"] == []


def test_pages_continue_behind_the_last_key(user, use):
    for model in ("b", "A", "a", "B"):
        use(user.caller.account_id, model=model)

    first = report(user, group_by="model", limit=3)
    second = report(user, group_by="model", limit=3, after=first["data"][-1]["key"])

    assert [row["key"] for row in first["data"] + second["data"]] == ["A", "B", "a", "b"]
    assert (first["has_more"], second["has_more"]) == (True, False)


def test_members_and_keys_without_the_scope_see_their_own_amounts_only(principals, use):
    owner, member = principals.user_ids["owner"], principals.user_ids["member"]
    use(principals.account_id, user_id=owner)
    use(principals.account_id, user_id=member, amount="0.25")

    def groups(principal):
        answer = principals.request(principal, "GET", PATH, params={**PERIOD, "group_by": "member"}).json()
        return {row["key"]: row["amount"] for row in answer["report"]["data"]}, answer["amount_spent"]

    assert groups("owner") == ({owner: "0.50", member: "0.25"}, "0.00")
    assert groups("member") == ({member: "0.25"}, None)
    assert groups(f"{Scope.READ} key") == ({owner: "0.50"}, None)


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ({"start": PERIOD["end"]}, "start"),
        ({"start": 0}, "start"),
        ({"group_by": "colour"}, "group_by"),
        ({"limit": 1001}, "limit"),
    ],
)
def test_wrong_periods_and_groups_are_rejected(user, query, param):
    assert_error(user.request("GET", PATH, params={**PERIOD, "group_by": "day", **query}), 400, param=param)


def test_without_a_group_the_fields_are_those_of_the_month(user):
    answer = user.request("GET", PATH).json()

    assert {"tokens_used", "tokens_reserved", "tokens_limit", "stored_bytes", "currency"} <= answer.keys()
    assert "report" not in answer
    assert (answer["amount_spent"], answer["amount_reserved"]) == ("0.00", "0.00")


def test_days_are_those_of_the_time_zone(user, database):
    # Given usage at random times of a year, around the changes of clocks, too
    rng, start = random.Random(7), datetime(2025, 3, 1, tzinfo=UTC)
    times = [start + timedelta(seconds=rng.randrange(300 * 86_400)) for _ in range(300)]
    amounts = [Decimal(rng.randrange(1, 10**9)).scaleb(-7) for _ in times]
    insert = """
        INSERT INTO usage_records (job_id, account_id, model, input_tokens, cached_tokens, output_tokens, created_at,
                                   billed_amount, billed_currency) VALUES (%s, %s, 'm', 3, 1, 2, %s, %s, 'EUR')
    """
    with database.transaction() as connection:
        for time_, amount in zip(times, amounts, strict=True):
            connection.execute(insert, (new_id("job"), user.caller.account_id, time_, amount))

    for zone in ("UTC", "Europe/Berlin", "America/St_Johns", "Pacific/Kiritimati", "Asia/Kathmandu"):
        # When they are read page by page, Then each day has the sum of its records
        expected: dict[str, Decimal] = defaultdict(Decimal)
        for time_, amount in zip(times, amounts, strict=True):
            expected[time_.astimezone(ZoneInfo(zone)).date().isoformat()] += amount
        query = {"group_by": "day", "time_zone": zone, "start": int(start.timestamp()), "limit": 50,
                 "end": int((start + timedelta(days=301)).timestamp())}  # fmt: skip
        found, page = {}, report(user, **query)
        while True:
            found |= {row["key"]: Decimal(row["amount"]) for row in page["data"]}
            if not page["has_more"]:
                break
            page = report(user, **query, after=page["data"][-1]["key"])
        assert found == expected
        assert page["time_zone"] == zone


def test_postgres_has_every_time_zone(database):
    with database.connection() as connection:
        for zone in cron.time_zones():
            connection.execute("SELECT now() AT TIME ZONE %s", (zone,))


@pytest.mark.parametrize("zone", ["Mars/Olympus", "localtime", "", "UTC'; --", "x" * 101])
def test_an_unknown_time_zone_is_rejected(user, zone):
    answer = user.request("GET", "/v1/account/usage", params={"group_by": "day", "time_zone": zone})

    assert_error(answer, 400, param="time_zone")
