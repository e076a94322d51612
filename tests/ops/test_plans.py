"""`sangha plans` lists plans and makes versions of them."""

import json

import pytest
from click.testing import CliRunner

from models.platform.database import Database
from ops.cli import main

PLAN = {"name": "Pro", "limits": {"streams": 5}, "fee": "19.00", "currency": "EUR"}


def plans(*arguments: str, body: object = None, code: int = 0) -> list[str]:
    result = CliRunner().invoke(main, ["plans", *arguments], input=json.dumps(body))
    assert result.exit_code == code, result.output
    return result.output.splitlines()


def test_a_change_makes_a_version_and_the_same_body_none(installation: Database) -> None:
    plans("put", "pro", body=PLAN)
    plans("put", "pro", body=PLAN)
    plans("put", "pro", body={**PLAN, "fee": "29.00", "trial_days": 7})

    headings, newest, first = plans("list", "--versions", "pro")
    assert headings.split()[:4] == ["plan", "version", "name", "fee"]
    assert newest.split()[:8] == ["pro", "2", "Pro", "29.00", "EUR", "month", "7", "yes"]
    assert first.split()[1:4] == ["1", "Pro", "19.00"]
    assert {line.split()[0] for line in plans("list")[1:]} >= {"default", "unverified", "pro"}


@pytest.mark.parametrize("body", [{**PLAN, "fee": "-1"}, {**PLAN, "fee": 1.5}, {"name": "x"}, []])
def test_an_invalid_body_is_rejected_in_one_line(installation: Database, body: object) -> None:
    before = plans("list")

    assert len(plans("put", "pro", body=body, code=2)) == 1
    assert plans("list") == before
