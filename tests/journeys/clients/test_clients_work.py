"""Unmodified clients work, given a base URL and a key.

`make test` tries the core set, `make clients` all of them. The engine is scripted: the tests are about the protocol.
"""

import os
from pathlib import Path

import orjson
import pytest

from tests.journeys.clients.catalogue import CLIENTS, Client
from tests.journeys.clients.runs import PATIENCE, run_steps
from tests.journeys.shop import Shop

#: Set by `make clients`: the file to which the results are written, and from which the guide's table is made.
RESULTS = os.environ.get("SANGHA_CLIENT_RESULTS")

TRIED = [client for client in CLIENTS if client.is_core or RESULTS]


# The first client of an environment waits for its installation.
@pytest.mark.timeout(PATIENCE + 600)
@pytest.mark.parametrize("client", TRIED, ids=lambda client: client.name)
def test_every_step_of_a_client_works(client: Client, address: str, key: str, shop: Shop):
    errors = run_steps(client, address, key, shop.url)

    if RESULTS:
        record(client, errors, Path(RESULTS))
    assert errors
    assert not [f"{step}: {error}" for step, error in errors.items() if error]


def record(client: Client, errors: dict[str, str | None], file: Path) -> None:
    """Append the results of a client to a file, as a line of JSON."""
    passed = {step: error is None for step, error in errors.items()}
    with file.open("ab") as lines:
        lines.write(orjson.dumps({"client": client.name, "version": client.version, "steps": passed}) + b"\n")
