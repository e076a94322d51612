"""A prompt with a partial answer, and the grammar of its rest."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pipelines.inference.answer_grammar import Preamble, calls_grammar, json_grammar
from pipelines.inference.control_tokens import break_control_tokens
from pipelines.inference.engine import Message, OutputFormat, ReasoningToken, Token, ToolCall
from pipelines.inference.llamacpp.reasoning import GRAMMAR_RULES, ReasoningMarks
from pipelines.inference.llamacpp.tool_prompt import render_calls, render_messages
from pipelines.inference.llamacpp.tool_template import TEXT_ONLY, ToolTemplate


@dataclass(frozen=True, slots=True)
class PartialAnswer:
    """A prompt, its output format, and the answer so far: reasoning, then text, then calls."""

    prompt: Sequence[Message]
    output_format: OutputFormat
    text: str
    calls: Sequence[ToolCall]
    reasoning: str = ""
    tool_template: ToolTemplate = TEXT_ONLY

    @property
    def has_output(self) -> bool:
        """Whether there is anything to continue."""
        return bool(self.text or self.calls or self.reasoning)

    @property
    def is_constrained(self) -> bool:
        """Whether the answer is constrained by a grammar."""
        return bool(self.output_format.callable_tools) or self.output_format.schema is not None

    @property
    def has_all_calls(self) -> bool:
        """Whether the answer has as many calls as it may have."""
        return len(self.calls) >= self.output_format.max_calls

    @property
    def is_reasoning(self) -> bool:
        """Whether the answer so far is reasoning only, which may be incomplete."""
        return bool(self.reasoning) and not (self.text or self.calls)

    def followed_by(self, output: ReasoningToken | Token) -> "PartialAnswer":
        """Return the answer with this output appended."""
        if isinstance(output, ReasoningToken):
            return replace(self, reasoning=self.reasoning + output.text)
        return replace(self, text=self.text + output.text)

    def prompt_parameters(self) -> dict[str, Any]:
        """Return the parameters of llama.cpp's request that determine the prompt."""
        parameters: dict[str, Any] = {
            "messages": self.messages(),
            **self.tool_template.parameters(self.output_format),
        }
        if self.is_reasoning:
            parameters |= {"continue_final_message": "reasoning_content", "add_generation_prompt": False}
        return parameters

    def messages(self) -> list[dict[str, Any]]:
        """Return the prompt and the answer so far as a partial message. llama.cpp merges two consecutive ones."""
        messages = render_messages(self.prompt, self.output_format, self.tool_template)
        partial_answer = break_control_tokens(self.text) + render_calls(self.calls, self.tool_template.markup)
        reasoning = {"reasoning_content": break_control_tokens(self.reasoning)} if self.reasoning else {}
        if self.has_output and messages and _is_text_of_assistant(messages[-1]):
            messages[-1]["content"] += partial_answer
        elif self.has_output:
            messages.append({"role": "assistant", "content": partial_answer, **reasoning})
        return messages

    def grammar_parameters(self, assistant_prefix: str, marks: ReasoningMarks | None) -> dict[str, Any]:
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
                preamble = self._preamble(marks, assistant_prefix)
                return {"grammar": json_grammar(self.output_format.schema, preamble), "grammar_type": "tool_calls"}
            return {"grammar": json_grammar(self.output_format.schema, self._preamble(marks))}
        markup = self.tool_template.markup
        if not self.output_format.callable_tools or (self.text and markup.starts_answer):
            return {}
        preamble = Preamble() if self.text or self.calls else self._preamble(marks)
        return {"grammar": calls_grammar(self.output_format, len(self.calls), preamble, markup)}

    def _preamble(self, marks: ReasoningMarks | None, assistant_prefix: str = "") -> Preamble:
        if marks is None or not marks.in_grammar:
            return Preamble(assistant_prefix)
        inside = self.is_reasoning and not assistant_prefix
        return Preamble(f"{assistant_prefix} {marks.grammar_prefix(inside=inside)}", GRAMMAR_RULES)


def _is_text_of_assistant(message: Mapping[str, Any]) -> bool:
    return message["role"] == "assistant" and "tool_calls" not in message
