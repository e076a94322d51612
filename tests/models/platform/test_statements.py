"""The SQL statements of the source name their columns."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

PACKAGES = ("models", "pipelines", "tasks", "web", "scheduler", "ops")

STATEMENT = re.compile(r"\b(SELECT|RETURNING|INSERT INTO|COPY)\b")

#: What depends on the columns that a table happens to have.
UNNAMED = re.compile(
    r"\*(?=\s*(?:,|\)|;|$|FROM\b|INTO\b))(?<!\(\*)"  # SELECT *, RETURNING *, alias.*, but not count(*)
    r"|\bNATURAL\b"
    r"|\bINSERT INTO [\w.]+\s+(?:AS \w+\s+)?(?:VALUES|SELECT|TABLE)\b"
    r"|\bCOPY [\w.]+ (?:FROM|TO)\b"
    r"|\bTABLE [\w.]+\s*(?:;|$)"
)


def statements(source: str) -> Iterator[tuple[int, str]]:
    """Yield the line and text of each string with SQL; `{}` replaces what an f-string inserts."""
    tree = ast.parse(source)
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if id(node) not in docstrings and STATEMENT.search(text := string(node)):
            yield node.lineno, text  # type: ignore[attr-defined]


def string(node: ast.AST) -> str:
    """Return the text of a string or f-string; empty for other nodes."""
    if isinstance(node, ast.JoinedStr):
        return "".join(string(value) or "{}" for value in node.values)
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def test_statements_name_their_columns():
    files = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    assert files
    unnamed = [
        f"{path.relative_to(ROOT)}:{line}: {match.group()}"
        for path in files
        for line, text in statements(path.read_text())
        for match in UNNAMED.finditer(text)
    ]
    assert unnamed == []


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM jobs",
        "SELECT\n    *\nFROM jobs",
        "SELECT jobs.*, accounts.name FROM jobs",
        "SELECT 1 AS rank, * FROM owner",
        "UPDATE jobs SET state = 'queued' RETURNING *",
        "WITH moved AS (DELETE FROM jobs RETURNING *) INSERT INTO ended (id) SELECT id FROM moved",
        "SELECT id FROM jobs NATURAL JOIN accounts",
        "INSERT INTO ended SELECT id FROM jobs",
        "INSERT INTO jobs VALUES (%(id)s)",
        "COPY jobs TO STDOUT",
    ],
)
def test_statements_with_unnamed_columns_are_found(statement):
    assert [text for _, text in statements(f"READ = {statement!r}")] == [statement]
    assert UNNAMED.search(statement)


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT count(*) FROM jobs",
        "SELECT 2 * 3, id FROM jobs",
        "INSERT INTO jobs AS job (id) VALUES (1)",
        "SELECT FROM jobs",
    ],
)
def test_statements_with_named_columns_are_accepted(statement):
    assert not UNNAMED.search(statement)
