"""Whether a model may reason is read from its chat template."""

import struct

import pytest

from models.platform.settings import Settings
from pipelines.inference.registry import may_reason

TEXT = 8


def gguf(path, **entries):
    """Write a GGUF file that has only metadata of texts."""

    def text(value):
        return struct.pack("<Q", len(value)) + value

    body = b"".join(text(name.encode()) + struct.pack("<I", TEXT) + text(value) for name, value in entries.items())
    path.write_bytes(struct.pack("<4sIQQ", b"GGUF", 3, 0, len(entries)) + body)
    return Settings(model=str(path))


@pytest.mark.parametrize(
    ("template", "reasons"),
    [
        (b"{% if enable_thinking %}<think>{% endif %}", True),
        (b"<|channel|>analysis", True),
        (b"[THINK]", True),
        (b"<|im_start|>{{ message.role }}", False),
    ],
)
def test_a_model_reasons_if_its_template_knows_of_it(tmp_path, template, reasons):
    assert may_reason(gguf(tmp_path / "model.gguf", **{"tokenizer.chat_template": template})) is reasons


def test_a_model_may_reason_where_its_template_is_unknown(tmp_path):
    assert may_reason(gguf(tmp_path / "model.gguf", **{"general.architecture": b"llama"}))
    assert may_reason(Settings(model=str(tmp_path / "missing.gguf")))


def test_the_bundled_model_does_not_reason():
    assert not may_reason(Settings())
