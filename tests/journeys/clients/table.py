"""Write the table of the guide for clients from the results of the tests: `make clients`.

python -m tests.journeys.clients.table RESULTS
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from tests.journeys.clients.catalogue import CLIENTS

GUIDE = Path(__file__).parents[3] / "docs" / "guides" / "clients.md"

#: The lines between which the table is.
BEGIN, END = "<!-- written by `make clients` -->", "<!-- end -->"

#: Steps with a column of their own, by the name that the scripts give them; any others are in the last column.
COLUMNS = {
    "hello": "Text",
    "stream": "Stream",
    "tools": "Tools",
    "schema": "JSON by schema",
    "mcp": "MCP tools",
    "agent": "Agents",
    "embeddings": "Embeddings",
}
HEADER = ("Client", "Version", *COLUMNS.values(), "Also")

#: What a cell has for a step that passed, that failed, and that a client or its script lacks.
PASSED, FAILED, ABSENT = "yes", "**no**", "-"


def main(arguments: Sequence[str]) -> int:
    """Write the table; the exit code is 1 when a client has no results."""
    results = {result["client"]: result for result in map(orjson.loads, Path(arguments[0]).read_bytes().splitlines())}
    if missing := [client.name for client in CLIENTS if client.name not in results]:
        print(f"No results of {', '.join(missing)}: the table stays as it is.")
        return 1
    rows = [row_of(results[client.name]) for client in CLIENTS]
    before, _, rest = GUIDE.read_text().partition(BEGIN)
    GUIDE.write_text(f"{before}{BEGIN}\n\n{formatted(rows)}\n\n{END}{rest.partition(END)[2]}")
    return 0


def row_of(result: Mapping[str, Any]) -> list[str]:
    """Return the cells of a client's results."""
    steps = result["steps"]
    cells = [{True: PASSED, False: FAILED, None: ABSENT}[steps.get(name)] for name in COLUMNS]
    others = [name if passed else f"{FAILED}: {name}" for name, passed in steps.items() if name not in COLUMNS]
    return [result["client"], result["version"], *cells, ", ".join(others) or ABSENT]


def formatted(rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (HEADER, ["---"] * len(HEADER), *rows))


def rows_of_guide() -> Iterator[list[str]]:
    """Yield the cells of the rows in the guide's table."""
    table = GUIDE.read_text().partition(BEGIN)[2].partition(END)[0]
    for line in table.strip().splitlines()[2:]:
        yield [cell.strip() for cell in line.strip("|").split("|")]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
