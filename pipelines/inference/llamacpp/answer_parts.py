"""Generate an answer with a minimum of tokens in two parts, of which only the second may end by itself."""

from dataclasses import replace

from pipelines.inference.engine import Finish, ReasoningToken, Sampling, Token


class AnswerParts:
    """The parts of one answer: its first `min_tokens` tokens, generated without the end token, and the others."""

    def __init__(self, sampling: Sampling) -> None:
        self._sampling = sampling
        self._min_tokens = min(sampling.min_tokens, sampling.max_output_tokens)
        self._generated = self._generated_before = 0
        self._finish: Finish | None = None
        self._cached_tokens: int | None = None

    def next_part(self) -> Sampling | None:
        """Return the sampling of the next part; None after the last one."""
        if self._finish is not None and not self._continues(self._finish):
            return None
        below_minimum = self._generated < self._min_tokens
        limit = self._min_tokens if below_minimum else self._sampling.max_output_tokens
        self._generated_before = self._generated
        return replace(
            self._sampling,
            max_output_tokens=limit - self._generated,
            ignore_eos=below_minimum or self._sampling.ignore_eos,
        )

    @property
    def is_first(self) -> bool:
        """Whether the current part is the first one, which reads the prompt."""
        return self._finish is None

    def add(self, output: ReasoningToken | Token | Finish) -> None:
        """Count the output of the current part."""
        if not isinstance(output, Finish):
            self._generated += output.count
            return
        self._finish = output
        if self._cached_tokens is None:  # later parts reuse the prompt that the first one has read
            self._cached_tokens = output.cached_tokens

    def finish(self) -> Finish:
        """Return the end of the whole answer, after its last part."""
        assert self._finish is not None
        assert self._cached_tokens is not None
        return replace(self._finish, cached_tokens=self._cached_tokens, generated_tokens=self._generated)

    def _continues(self, finish: Finish) -> bool:
        """Return whether another part follows one that has ended: not where the context was full."""
        reached_its_limit = finish.reason == "length" and self._generated > self._generated_before
        was_below_minimum = self._generated_before < self._min_tokens
        return was_below_minimum and reached_its_limit and self._generated < self._sampling.max_output_tokens
