"""Read from a GGUF file whether its chat template knows of reasoning, without loading the model."""

import re
from functools import cache

from models.platform.errors import ConfigurationError
from models.platform.settings import Settings
from pipelines.inference.llamacpp.gguf_files import engine_file
from pipelines.inference.llamacpp.gguf_metadata import read_metadata

TEMPLATE = "tokenizer.chat_template"

#: What every template with reasoning contains: a mark such as `<think>`, `[THINK]`, `<|START_THINKING|>` or
#: `<|channel|>`, or the name of its variable, such as `reasoning_content`.
REASONING = re.compile(rb"think|thought|reason|channel", re.IGNORECASE)


def may_reason(settings: Settings) -> bool:
    """Return whether the model may reason: True also where its file is missing, as on a web server. Reads it once."""
    return _may_reason(settings.model)


@cache
def _may_reason(model: str | None) -> bool:
    try:
        file = engine_file(Settings.model_construct(model=model))
        template = read_metadata(file, [TEMPLATE]).get(TEMPLATE)
    except (ConfigurationError, OSError, ValueError):
        return True
    return template is None or REASONING.search(template) is not None
