"""The header that has browsers save a response as a file."""

from urllib.parse import quote


def content_disposition(filename: str) -> str:
    """Return the value of `Content-Disposition` for a download under this name (RFC 6266)."""
    plain = "".join(character if _is_plain(character) else "_" for character in filename)
    if plain == filename:
        return f'attachment; filename="{plain}"'
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(filename, safe='')}"


def _is_plain(character: str) -> bool:
    return " " <= character <= "~" and character not in '"\\%'
