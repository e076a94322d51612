"""Count the tokens that an engine reads and generates, while it does."""

from models.journal.writer import Journal
from models.platform.metrics import GENERATION_TOKENS, PROMPT_TOKENS, model_label

#: Tokens that are counted at once: a look-up of each would take longer than journalling it.
TOKENS = 16


class TokenMeter:
    """Counts the tokens that one generation journals."""

    def __init__(self, model: str, journal: Journal, prompt_tokens: int) -> None:
        self._model = model_label(model)
        self._journal = journal
        self._counted = journal.tokens
        PROMPT_TOKENS.labels(self._model).inc(prompt_tokens)

    def count(self) -> None:
        """Count what was journalled, once it is enough."""
        if self._journal.tokens - self._counted >= TOKENS:
            self.flush()

    def flush(self) -> None:
        """Count what was journalled."""
        tokens = self._journal.tokens
        GENERATION_TOKENS.labels(self._model).inc(tokens - self._counted)
        self._counted = tokens
