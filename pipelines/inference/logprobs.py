"""Keep the log probabilities of text that is released in other pieces than it was generated in."""

from pipelines.inference.engine import Token, TokenLogprob


class LogprobBuffer:
    """Holds the log probabilities of text until it is released: a token's with its first character."""

    def __init__(self) -> None:
        self._pending: list[tuple[int, TokenLogprob]] = []
        self._received = self._released = 0

    def add(self, token: Token) -> None:
        """Add generated text."""
        start = self._received
        self._received += len(token.text)
        for entry in token.logprobs:
            self._pending.append((min(start, self._received - 1), entry))
            start += len(entry.token)

    def take(self, text: str) -> tuple[TokenLogprob, ...]:
        """Return the log probabilities of the next text that is released."""
        self._released += len(text)
        released = [entry for start, entry in self._pending if start < self._released]
        del self._pending[: len(released)]
        return tuple(released)
