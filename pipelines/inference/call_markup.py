"""The markup of calls in an answer."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CallMarkup:
    """How a model writes a call: `open`, a JSON object with a name and arguments, `close`.

    The parts are exact: a partial answer is rendered as the model wrote it.

    starts_answer  a call is the whole answer: it has no markers, nothing precedes it, and no other call follows it
    """

    open: str
    name_key: str
    arguments_key: str
    close: str
    starts_answer: bool = False

    @property
    def start(self) -> str:
        """What begins a call, and nothing else."""
        return self.name_key if self.starts_answer else self.open.strip()

    @property
    def max_calls(self) -> int | None:
        """The most calls of an answer; None: any number."""
        return 1 if self.starts_answer else None


#: The end of the object.
OBJECT_END = "}"

#: The form introduced by Hermes, which Qwen and many others write, and which all models without one of their own get.
COMMON = CallMarkup("<tool_call>\n", '{"name": ', ', "arguments": ', "\n</tool_call>")

#: The form of Llama 3's templates: the object alone.
BARE = CallMarkup("", '{"name": ', ', "parameters": ', "", starts_answer=True)
