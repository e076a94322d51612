"""The error of a file without a text that a turn could read."""


class UnreadableFile(Exception):
    """A file has no text. The message is the reason, for its owner: "it is encrypted"."""
