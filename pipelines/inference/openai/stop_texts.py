"""End an answer at a stop text, for an API without such a parameter."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

from pipelines.inference.delimiter_scanner import DelimiterScanner
from pipelines.inference.engine import EngineOutput, Finish, GeneratedCall, Token


def until_stop(
    outputs: Iterable[EngineOutput], stops: Sequence[str], finish: Callable[[], Finish]
) -> Iterator[EngineOutput]:
    """Yield outputs up to the first stop text, and then what `finish` returns.

    Text that may be the beginning of one is held back.
    """
    scanner = DelimiterScanner(stops)
    for output in outputs:
        if isinstance(output, Token):
            text, found, _ = scanner.feed(output.text)
            yield replace(output, text=text)
            if found is not None:
                yield finish()
                return
            continue
        if isinstance(output, (Finish, GeneratedCall)) and (rest := scanner.flush()):
            yield Token(rest, 0)
        yield output
