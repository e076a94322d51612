"""Nothing of an invoice changes once it has a number, but its state and what was paid, credited and returned."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
SOURCES = [path for folder in ("models", "pipelines", "web", "ops", "tasks") for path in (ROOT / folder).rglob("*.py")]

#: What may change of an invoice that is not a draft.
MUTABLE = {"state", "paid", "credited", "returned", "paid_at", "voided_at", "tries"}

#: A statement that changes invoices: what it sets, and its condition.
UPDATE = re.compile(
    r"UPDATE invoices\b(?:\s+AS\s+\w+)?\s+SET\s+(.*?)\s+WHERE\s+(.*?)(?:RETURNING|\"\"\"|\"$)", re.S | re.M
)

#: A column that is set: what follows SET or a comma outside of parentheses.
COLUMN = re.compile(r"(?:^|,)\s*(\w+)\s*=")


def without_parentheses(text):
    """Return a text without what is in parentheses."""
    while (shorter := re.sub(r"\([^()]*\)", "", text)) != text:
        text = shorter
    return text


def test_statements_change_only_what_may_change():
    found = [match for path in SOURCES for match in UPDATE.finditer(path.read_text())]

    assert len(found) >= 5
    for match in found:
        columns = set(COLUMN.findall(without_parentheses(match[1])))
        assert columns, match[0]
        assert columns <= MUTABLE or "state = 'draft'" in match[2], match[0]


def test_lines_and_postings_are_only_inserted():
    forbidden = re.compile(r"(UPDATE|DELETE FROM|TRUNCATE)\s+(invoice_lines|postings|credit_notes)\b")

    assert [path for path in SOURCES if forbidden.search(path.read_text())] == []


def test_only_drafts_are_deleted():
    for path in SOURCES:
        for match in re.finditer(r"DELETE FROM invoices\b[^\"]*", path.read_text()):
            assert "state = 'draft'" in match[0], path
