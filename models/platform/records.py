"""The columns of a record: the list that a statement names instead of `*`.

A statement that returns `*` fails in a running process as soon as a newer version's migration adds a column. So each
statement that fills a record names the record's own fields.
"""

from collections.abc import Collection
from dataclasses import fields
from typing import Any


def columns(record: type[Any], table: str = "", *, omit: Collection[str] = ()) -> str:
    """Return the names of a dataclass's fields as the list of a SELECT or RETURNING, each preceded by `table`.

    omit  fields that are not columns of the table: the statement adds them as expressions
    """
    prefix = f"{table}." if table else ""
    return ", ".join(f"{prefix}{field.name}" for field in fields(record) if field.name not in omit)
