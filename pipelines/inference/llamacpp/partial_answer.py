"""An answer as far as it has been given, and how llama.cpp is held to its form for the rest."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.inference.control_tokens import plain
from pipelines.inference.engine import Form, Message, ToolCall
from pipelines.inference.llamacpp.grammar import of_calls, of_json
from pipelines.inference.llamacpp.tool_prompt import rendered, written


@dataclass(frozen=True, slots=True)
class Begun:
    """A prompt, the form that its answer has, and what was answered before: text, then calls."""

    prompt: Sequence[Message]
    form: Form
    text: str
    calls: Sequence[ToolCall]

    @property
    def answered(self) -> bool:
        """Whether there is anything to go on from."""
        return bool(self.text or self.calls)

    @property
    def held(self) -> bool:
        """Whether the answer may be more or less than text."""
        return bool(self.form.callable) or self.form.schema is not None

    @property
    def ended(self) -> bool:
        """Whether the answer has all the calls that it may have."""
        return len(self.calls) >= self.form.most_calls

    def messages(self) -> list[dict[str, str]]:
        """The prompt and the answer as the assistant's message begun; two of those in a row are one to llama.cpp."""
        messages = rendered(self.prompt, self.form)
        answer = plain(self.text) + written(self.calls)
        if answer and messages and messages[-1]["role"] == "assistant":
            messages[-1]["content"] += answer
        elif answer:
            messages.append({"role": "assistant", "content": answer})
        return messages

    def constraint(self, opening: str) -> dict[str, Any]:
        """What of llama.cpp's request holds the rest of the answer to the form.

        A grammar begins where the model does. JSON can't be begun in its middle, but llama.cpp reads what opens an
        answer, and what was answered, through a grammar that it takes for its own.
        """
        if self.form.schema is not None and not self.calls and (self.text or not self.form.callable):
            if self.text:
                return {"grammar": of_json(self.form.schema, opening), "grammar_type": "tool_calls"}
            return {"grammar": of_json(self.form.schema)}
        return {"grammar": of_calls(self.form, len(self.calls))} if self.form.callable else {}
