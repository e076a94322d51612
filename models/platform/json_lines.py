"""JSON in lines, as in event streams and exports."""

#: Characters that many clients take for the end of a line, though JSON has them raw: U+2028, U+2029 and U+0085.
SEPARATORS = ((b"\xe2\x80\xa8", b"\\u2028"), (b"\xe2\x80\xa9", b"\\u2029"), (b"\xc2\x85", b"\\u0085"))


def escape_line_separators(data: bytes) -> bytes:
    """Escape what clients may take for the end of a line. They occur only in strings of JSON."""
    for separator, escaped in SEPARATORS:
        if separator in data:
            data = data.replace(separator, escaped)
    return data
