"""The guide's table has each client that is tried, at its locked version: `make clients` has written it."""

import pytest

from tests.journeys.clients.catalogue import CLIENTS
from tests.journeys.clients.table import ABSENT, COLUMNS, FAILED, HEADER, PASSED, formatted, row_of, rows_of_guide

STALE = "run `make clients`"


def test_every_client_has_a_row_at_its_locked_version():
    rows = [(cells[0], cells[1]) for cells in rows_of_guide()]

    assert rows == [(client.name, client.version) for client in CLIENTS], STALE


def test_every_cell_is_a_result():
    for cells in rows_of_guide():
        assert len(cells) == len(HEADER)
        assert set(cells[2:-1]) <= {PASSED, ABSENT}, f"{cells[0]}: {STALE}"
        assert FAILED not in cells[-1], f"{cells[0]}: {STALE}"


@pytest.mark.parametrize(
    ("steps", "cells"),
    [
        ({"hello": True, "stream": False}, [PASSED, FAILED, *[ABSENT] * (len(COLUMNS) - 1)]),
        ({"abort": True, "handoff": False}, [*[ABSENT] * len(COLUMNS), f"abort, {FAILED}: handoff"]),
    ],
)
def test_a_row_shows_what_passed_what_failed_and_what_is_absent(steps: dict[str, bool], cells: list[str]):
    row = row_of({"client": "a client", "version": "1.2", "steps": steps})

    assert row == ["a client", "1.2", *cells]
    assert formatted([row]).splitlines()[-1].startswith("| a client | 1.2 |")
