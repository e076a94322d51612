"""The migration files of this version, and the code that each works with.

A line in the header of a file says it:

-- roll: expand         it works with the code before it, so processes are replaced after it
-- roll: contract 0014  no process may run that does not know migration 0014

The *schema version* of a process is the number of the newest migration that it knows. `schema_compatibility` has the
oldest that works with the database: applying a contract migration raises it.
"""

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "migrations"

HEADER = re.compile(r"^-- roll: (?:expand|contract (?P<needs>\d{4}))$", re.MULTILINE)

#: The schema version before versions were recorded. Its migrations have no header: they create the tables.
FIRST_VERSION = "0008"


@dataclass(frozen=True, slots=True)
class MigrationFile:
    """A migration. `needs` is the schema version that all running processes must have; None: any."""

    name: str
    needs: str | None

    @property
    def number(self) -> str:
        """The number, by which migrations are ordered."""
        return self.name[:4]

    def __str__(self) -> str:
        return f"{self.name} ({f'contract, needs {self.needs}' if self.needs else 'expand'})"


@cache
def schema_version() -> str:
    """Return the schema version of this code."""
    return read_files()[-1].number


def read_files() -> list[MigrationFile]:
    """Return the migrations that this code knows, in order."""
    return [read_file(path) for path in sorted(FOLDER.glob("*.sql"))]


def read_file(path: Path) -> MigrationFile:
    """Read the header of a migration. Raises ValueError if it does not say what code the migration works with."""
    name = path.name.removesuffix(".sql")
    header = HEADER.search(path.read_text())
    if header is None and name[:4] > FIRST_VERSION:
        raise ValueError(f"{path.name}: add a line `-- roll: expand` or `-- roll: contract NUMBER`.")
    return MigrationFile(name, header["needs"] if header else None)


def process_name(name: str) -> str:
    """Return the name of a process's connections, by which `sangha doctor --release` recognises its schema version."""
    return f"sangha/{schema_version()} {name}"
