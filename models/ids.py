"""Identifiers: a prefix that says what it is, and a UUIDv7 that sorts by time of birth."""

from uuid_utils import uuid7


def new_id(prefix: str) -> str:
    """`new_id("job")` → `job_0199…`, 32 hexadecimal digits after the prefix."""
    return f"{prefix}_{uuid7().hex}"
