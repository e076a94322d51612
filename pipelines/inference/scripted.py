"""An engine that plays a script: for tests, and for measuring the platform without a model's weight.

It understands nothing. Whatever the prompt, it answers `w0 w1 w2 … `, so that a gap, a repeat or a rewrite shows at
a glance, and it fails on demand at a known token. `models.settings.Script` says what can be set.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence

from models.settings import Script, Settings
from pipelines.inference.engine import EngineError, Finish, Message, Sampling, Token
from pipelines.inference.names import model_name

#: Seconds between two looks at `cancelled` while waiting.
POLL = 0.01


class Scripted:
    """The engine of `SANGHA_ENGINE=scripted`. Its tokens are words, in prompts as in answers."""

    def __init__(self, settings: Settings) -> None:
        self.script: Script = settings.script
        self.name = model_name(settings)
        self.continues = not settings.script.restarts
        self.slots = settings.slots
        self.context = settings.context

    def count(self, prompt: Sequence[Message]) -> int:
        """Whitespace-separated words."""
        return sum(len(message.content.split()) for message in prompt)

    def generate(
        self, prompt: Sequence[Message], *, prefix: str, sampling: Sampling, cancelled: Callable[[], bool]
    ) -> Iterator[Token | Finish]:
        """Play the script from where `prefix` ends, to the letter. A token cut in two counts where it is completed."""
        # A prefix ends inside a token unless it ends with a space.
        first, cut = (prefix.count(" "), prefix.rpartition(" ")[2]) if self.continues else (0, "")
        last = min(self.script.tokens, first + sampling.max_output_tokens)
        armed = self.script.trigger in _last_user_message(prompt)
        words, generated, began = self.count(prompt), 0, time.monotonic()
        for index in range(first, last):
            if armed:
                self._strike(index, first, cancelled)
            if self._wait(began, generated, cancelled):
                yield Finish("cancelled", words, 0, generated)
                return
            yield Token(f"w{index} "[len(cut) :], 1)
            cut, generated = "", generated + 1
        yield Finish("stop" if last == self.script.tokens else "length", words, 0, generated)

    def close(self) -> None:
        """Nothing is held."""

    def _strike(self, index: int, first: int, cancelled: Callable[[], bool]) -> None:
        """Do what the script says for this token, unless an earlier attempt got as far: it was struck then."""
        if index == first and index > 0:
            return
        if index == self.script.fail_at:
            raise EngineError(f"the script fails before token {index}")
        if index == self.script.exit_at:
            os._exit(1)
        while index == self.script.hang_at and not cancelled():
            time.sleep(POLL)

    def _wait(self, began: float, generated: int, cancelled: Callable[[], bool]) -> bool:
        """Keep to the schedule, whose first token is due at once. Returns True as soon as it is cancelled."""
        if not self.script.rate:
            return cancelled()
        due = began + generated / self.script.rate
        while not cancelled():
            left = due - time.monotonic()
            if left <= 0:
                return False
            time.sleep(min(left, POLL))
        return True


def _last_user_message(prompt: Sequence[Message]) -> str:
    return next((message.content for message in reversed(prompt) if message.role == "user"), "")
