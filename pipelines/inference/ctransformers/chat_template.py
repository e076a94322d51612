"""Apply a model's chat template, which ctransformers does not."""

from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from models.platform.errors import ConfigurationError, PermanentFailure

#: The format of Llama 2, for files without a template.
LLAMA2 = """{%- set instructions, rest = '', messages -%}
{%- if messages and messages[0].role == 'system' -%}
{%- set instructions, rest = '<<SYS>>\\n' ~ messages[0].content ~ '\\n<</SYS>>\\n\\n', messages[1:] -%}
{%- endif -%}
{%- for message in rest -%}
{%- if message.role == 'assistant' -%}{{ ' ' ~ message.content ~ ' ' ~ eos_token }}
{%- else -%}{{ bos_token ~ '[INST] ' ~ (instructions if loop.first else '') ~ message.content ~ ' [/INST]' }}
{%- endif -%}
{%- endfor -%}"""


class ChatTemplate:
    """Renders messages. Templates come from model files, so they run in a sandbox."""

    def __init__(self, source: str, bos: str, eos: str) -> None:
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        environment.globals["raise_exception"] = _reject
        self._tokens = {"bos_token": bos, "eos_token": eos}
        try:
            self._template = environment.from_string(source)
        except TemplateError as error:
            raise ConfigurationError(f"SANGHA_MODEL: its chat template has an error: {error}") from error

    def render(self, messages: Sequence[Mapping[str, Any]]) -> str:
        """Return the prompt up to where the answer begins.

        A partial answer at the end follows the prompt, after a blank where the prompt ends with none.
        """
        partial = messages[-1]["content"] if messages and messages[-1]["role"] == "assistant" else None
        prompt = self._render(messages if partial is None else messages[:-1])
        return prompt if partial is None else f"{prompt}{self.blank(prompt)}{partial}"

    @staticmethod
    def blank(prompt: str) -> str:
        """Return what separates a prompt from its answer."""
        return "" if not prompt or prompt[-1].isspace() else " "

    def _render(self, messages: Sequence[Mapping[str, Any]]) -> str:
        try:
            return self._template.render(messages=messages, add_generation_prompt=True, **self._tokens)
        except (TemplateError, TypeError) as error:
            raise PermanentFailure(f"The chat template rejects the prompt: {error}", code="invalid_request") from error


def _reject(message: str) -> None:
    raise TemplateError(message)
