"""Detect how a chat template marks reasoning, and write grammars that admit reasoning before the answer.

llama.cpp separates reasoning from the answer by the template. A grammar applies to both.
"""

import re
from dataclasses import dataclass

import orjson

from pipelines.inference.llamacpp.loopback import LoopbackClient

REASONING, ANSWER = "A reason 17", "An answer 23"

USER = {"role": "user", "content": "Hello"}

#: A mark that is a control token, such as `<|end|>`, which a grammar cannot describe as text.
CONTROL_TOKEN = re.compile(r"<\|[^<>]*\|>|\[/?THINK\]")

#: The marks that a grammar can describe: those of Qwen, DeepSeek and the models that are trained on their answers.
GRAMMAR_OPEN, GRAMMAR_CLOSE = "<think>", "</think>"

GRAMMAR_RULES = rf"""thought[lazy]: /(?s:.*){re.escape(GRAMMAR_CLOSE).replace("/", chr(92) + "/")}/
BLANKS: /[ \n]+/
"""


@dataclass(frozen=True, slots=True)
class ReasoningMarks:
    """The marks that a chat template writes around reasoning.

    opens       the prompt ends with the opening mark, so that the model always reasons
    in_grammar  grammars can describe the marks; otherwise answers that a grammar constrains have no reasoning
    """

    opens: bool
    in_grammar: bool

    def grammar_prefix(self, *, inside: bool) -> str:
        """Return the symbols of reasoning before the answer. `inside`: the prompt ends within the reasoning."""
        open_reasoning = "thought BLANKS?"
        return open_reasoning if inside or self.opens else f"({orjson.dumps(GRAMMAR_OPEN).decode()} {open_reasoning})?"


def reasoning_marks(loopback: LoopbackClient) -> ReasoningMarks | None:
    """Return the marks of the model's template, or None if it does not support reasoning."""
    reasoning_prompt = _prompt(loopback, "reasoning_content", "")
    answer_prompt = _prompt(loopback, "content", ANSWER)
    if REASONING not in answer_prompt or not answer_prompt.endswith(ANSWER) or not reasoning_prompt.endswith(REASONING):
        return None
    plain = str(loopback.request("POST", "/apply-template", {"messages": [USER]}).get("prompt"))
    marks = answer_prompt[len(plain) :] if answer_prompt.startswith(plain) else answer_prompt
    opens = reasoning_prompt == plain + REASONING
    has_marks = GRAMMAR_CLOSE in marks and (opens or GRAMMAR_OPEN in marks)
    return ReasoningMarks(opens, in_grammar=has_marks and not CONTROL_TOKEN.search(marks))


def _prompt(loopback: LoopbackClient, continued: str, content: str) -> str:
    partial = {"role": "assistant", "content": content, "reasoning_content": REASONING}
    body = {"messages": [USER, partial], "continue_final_message": continued, "add_generation_prompt": False}
    return str(loopback.request("POST", "/apply-template", body).get("prompt", ""))
