"""Constrain an answer with a grammar: llguidance says which tokens may come next."""

from typing import Any

import numpy as np
import numpy.typing as npt
from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper

from models.platform.errors import PermanentFailure
from pipelines.inference.answer_grammar import calls_grammar, json_grammar
from pipelines.inference.ctransformers.vocabulary import Vocabulary
from pipelines.inference.llamacpp.partial_answer import PartialAnswer


class Grammars:
    """Makes the constraints of answers, for one vocabulary."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._size = len(vocabulary)
        self._tokenizer = LLTokenizer(TokenizerWrapper(_Tokenizer(vocabulary)))

    def constraint(self, partial: PartialAnswer) -> "Constraint | None":
        """Return what constrains the rest of an answer. Raises PermanentFailure("invalid_request")."""
        output_format = partial.output_format
        if (
            output_format.schema is not None
            and not partial.calls
            and (partial.text or not output_format.callable_tools)
        ):
            return Constraint(self._tokenizer, json_grammar(output_format.schema), partial.text, self._size)
        if output_format.callable_tools:
            return Constraint(self._tokenizer, calls_grammar(output_format, len(partial.calls)), "", self._size)
        return None


class Constraint:
    """Which tokens may follow in one answer, of which `text` is there already."""

    def __init__(self, tokenizer: LLTokenizer, grammar: str, text: str, size: int) -> None:
        self._matcher, self._size = LLMatcher(tokenizer, grammar), size
        if text:
            self._matcher.consume_tokens(tokenizer.greedy_tokenize(text))
        if self._matcher.is_error():
            raise PermanentFailure(self._matcher.get_error(), code="invalid_request")

    @property
    def is_complete(self) -> bool:
        """Whether nothing can follow."""
        return bool(self._matcher.is_stopped())

    def mask(self) -> npt.NDArray[np.bool_]:
        """Return for each token whether it may follow."""
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        return np.unpackbits(bits, bitorder="little", count=self._size).astype(bool)

    def add(self, token: int) -> None:
        """Append a token to the answer."""
        self._matcher.consume_token(token)


class _Tokenizer:
    """What llguidance asks of a tokenizer."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.eos_token_id, self.bos_token_id = vocabulary.eos, vocabulary.bos
        self.special_token_ids = sorted(vocabulary.control.values())
        self._longest = vocabulary.longest
        names = {index: text.encode() for text, index in vocabulary.control.items()}
        self.tokens = [names.get(index, data) for index, data in enumerate(vocabulary.data)]
        self._by_data = {data: index for index, data in reversed([*enumerate(vocabulary.data)]) if data}

    def __call__(self, text: Any) -> list[int]:
        """Return tokens of a text in the middle of an answer; the model's own tokenizer would begin with a blank."""
        data: bytes = text if isinstance(text, bytes) else text.encode()
        tokens, position = list[int](), 0
        while position < len(data):
            sizes = range(min(self._longest, len(data) - position), 0, -1)
            size = next(size for size in sizes if data[position : position + size] in self._by_data)
            tokens.append(self._by_data[data[position : position + size]])
            position += size
        return tokens
