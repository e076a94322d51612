"""A prompt with a partial answer, and the grammar of its rest."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.inference.answer_grammar import calls_grammar, json_grammar
from pipelines.inference.control_tokens import break_control_tokens
from pipelines.inference.engine import Message, OutputFormat, ToolCall
from pipelines.inference.llamacpp.tool_prompt import render_calls, render_messages


@dataclass(frozen=True, slots=True)
class PartialAnswer:
    """A prompt, its output format, and the answer so far: text, then calls."""

    prompt: Sequence[Message]
    output_format: OutputFormat
    text: str
    calls: Sequence[ToolCall]

    @property
    def has_output(self) -> bool:
        """Whether there is anything to continue."""
        return bool(self.text or self.calls)

    @property
    def is_constrained(self) -> bool:
        """Whether the answer is constrained by a grammar."""
        return bool(self.output_format.callable_tools) or self.output_format.schema is not None

    @property
    def has_all_calls(self) -> bool:
        """Whether the answer has as many calls as it may have."""
        return len(self.calls) >= self.output_format.max_calls

    def messages(self) -> list[dict[str, str]]:
        """Return the prompt and the answer so far as a partial message. llama.cpp merges two consecutive ones."""
        messages = render_messages(self.prompt, self.output_format)
        partial_answer = break_control_tokens(self.text) + render_calls(self.calls)
        if partial_answer and messages and messages[-1]["role"] == "assistant":
            messages[-1]["content"] += partial_answer
        elif partial_answer:
            messages.append({"role": "assistant", "content": partial_answer})
        return messages

    def grammar_parameters(self, assistant_prefix: str) -> dict[str, Any]:
        """Return the parameters of llama.cpp's request that constrain the rest of the answer.

        A grammar begins where the model does. JSON can't begin in its middle, but with the type `tool_calls` llama.cpp
        parses the template's assistant prefix and the answer so far with the grammar first.
        """
        if (
            self.output_format.schema is not None
            and not self.calls
            and (self.text or not self.output_format.callable_tools)
        ):
            if self.text:
                return {
                    "grammar": json_grammar(self.output_format.schema, assistant_prefix),
                    "grammar_type": "tool_calls",
                }
            return {"grammar": json_grammar(self.output_format.schema)}
        return (
            {"grammar": calls_grammar(self.output_format, len(self.calls))} if self.output_format.callable_tools else {}
        )
