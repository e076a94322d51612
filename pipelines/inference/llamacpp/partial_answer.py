"""An answer as far as it has been given, and how llama.cpp is held to its form for the rest."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.inference.control_tokens import break_control_tokens
from pipelines.inference.engine import Message, OutputFormat, ToolCall
from pipelines.inference.llamacpp.grammar import calls_grammar, json_grammar
from pipelines.inference.llamacpp.tool_prompt import render_calls, render_messages


@dataclass(frozen=True, slots=True)
class PartialAnswer:
    """A prompt, the form that its answer has, and what was answered before: text, then calls."""

    prompt: Sequence[Message]
    output_format: OutputFormat
    text: str
    calls: Sequence[ToolCall]

    @property
    def has_output(self) -> bool:
        """Whether there is anything to go on from."""
        return bool(self.text or self.calls)

    @property
    def is_constrained(self) -> bool:
        """Whether the answer may be more or less than text."""
        return bool(self.output_format.callable_tools) or self.output_format.schema is not None

    @property
    def has_all_calls(self) -> bool:
        """Whether the answer has all the calls that it may have."""
        return len(self.calls) >= self.output_format.max_calls

    def messages(self) -> list[dict[str, str]]:
        """The prompt and the answer as the assistant's message begun; two of those in a row are one to llama.cpp."""
        messages = render_messages(self.prompt, self.output_format)
        answer = break_control_tokens(self.text) + render_calls(self.calls)
        if answer and messages and messages[-1]["role"] == "assistant":
            messages[-1]["content"] += answer
        elif answer:
            messages.append({"role": "assistant", "content": answer})
        return messages

    def grammar_parameters(self, opening: str) -> dict[str, Any]:
        """What of llama.cpp's request holds the rest of the answer to the form.

        A grammar begins where the model does. JSON can't be begun in its middle, but llama.cpp reads what opens an
        answer, and what was answered, through a grammar that it takes for its own.
        """
        if (
            self.output_format.schema is not None
            and not self.calls
            and (self.text or not self.output_format.callable_tools)
        ):
            if self.text:
                return {"grammar": json_grammar(self.output_format.schema, opening), "grammar_type": "tool_calls"}
            return {"grammar": json_grammar(self.output_format.schema)}
        return (
            {"grammar": calls_grammar(self.output_format, len(self.calls))} if self.output_format.callable_tools else {}
        )
