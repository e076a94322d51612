"""The types of files whose text a turn reads."""

PDF = "application/pdf"

#: The types of texts beside those of `text/`.
TEXT_TYPES = frozenset({
    "application/json", "application/jsonl", "application/javascript", "application/toml", "application/x-ndjson",
    "application/x-python", "application/x-sh", "application/x-yaml", "application/xhtml+xml", "application/xml",
    "application/yaml", "image/svg+xml",
})  # fmt: skip


def media_type(content_type: str) -> str:
    """Return the type without its parameters."""
    return content_type.partition(";")[0].strip().lower()


def is_text(content_type: str) -> bool:
    """Return whether a file is a text as it is."""
    kind = media_type(content_type)
    return kind.startswith("text/") or kind in TEXT_TYPES


def is_readable(content_type: str) -> bool:
    """Return whether a turn reads the text of such a file."""
    return is_text(content_type) or media_type(content_type) == PDF


def unreadable_type(content_type: str) -> str:
    """Return why no turn reads a file of another type, to continue a sentence about it."""
    return f"its type is {media_type(content_type)}; texts in UTF-8 and PDF can be read"
