"""`sangha doctor --model PATH`: one line for each finding, with a remedy."""

from pathlib import Path

import pytest

from bench.harness.random_models.llama2 import write_llama2
from bench.harness.random_models.llama31 import write_llama31
from models.platform.settings import Settings
from ops.doctor.finding import run_check
from ops.doctor.model import ModelChecks
from pipelines.inference.llamacpp.context_size import ModelSize
from pipelines.inference.llamacpp.memory_plan import MemoryPlan
from tests.ops.commands import sangha

LLAMA = ModelSize(trained_context=131_072, token_bytes=128 << 10, file_bytes=4_920_734_272)


def report(*arguments: str) -> tuple[int, dict[str, str]]:
    """Return the exit code, and the lines by the name of their finding."""
    result = sangha("doctor", "--model", *arguments)
    lines = result.output.splitlines()
    return result.exit_code, {line.partition(": ")[0].split(maxsplit=1)[1]: line for line in lines}


def test_a_model_that_fits_is_described_and_run(tmp_path: Path) -> None:
    code, lines = report(str(write_llama31(tmp_path / "model.gguf")))

    assert list(lines) == ["model", "memory", "slots", "prompt format", "speed"]
    assert code == 0
    assert "llama, 0.00011 billion weights, mostly F32" in lines["model"]
    assert "4 slots of 2,048 tokens 2 MB (0.25 KiB a token)" in lines["memory"]
    assert "tools through it, one call an answer; no reasoning" in lines["prompt format"]
    assert "tokens a second and writes" in lines["speed"]


def test_a_file_without_a_template_is_a_warning(tmp_path: Path) -> None:
    code, lines = report(str(write_llama2(tmp_path / "model.gguf")))

    assert code == 0
    assert lines["prompt format"].startswith("warn prompt format: the file has no chat template")


def test_ctransformers_refuses_what_it_cannot_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SANGHA_ENGINE", "ctransformers")

    code, lines = report(str(write_llama31(tmp_path / "model.gguf")))

    assert (code, list(lines)) == (1, ["model file"])
    assert lines["model file"].endswith("use SANGHA_ENGINE=llamacpp")
    assert report(str(write_llama2(tmp_path / "other.gguf")))[0] == 0


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    code, lines = report(str(tmp_path / "none.gguf"))

    assert code == 1
    assert lines["model file"].endswith("none.gguf': the file does not exist")


@pytest.mark.parametrize("size", [3, 30, 5000])
def test_a_file_that_ends_in_its_metadata_is_one_line(tmp_path: Path, size: int) -> None:
    file = write_llama31(tmp_path / "model.gguf")
    file.write_bytes(file.read_bytes()[:size])

    code, lines = report(str(file))

    assert (code, len(lines)) == (1, 1)


def test_a_file_that_ends_in_its_weights_is_not_loaded(tmp_path: Path) -> None:
    file = write_llama31(tmp_path / "model.gguf")
    file.write_bytes(file.read_bytes()[:-5000])

    code, lines = report(str(file))

    assert (code, list(lines)) == (1, ["model"])
    assert "bytes of model.gguf are missing — download the file again" in lines["model"]


def checks_of(memory: int, **settings: object) -> tuple[ModelChecks, Settings]:
    """Return the checks of Llama 3.1 8B on a machine with this memory."""
    checks = ModelChecks(Settings())
    checks.__dict__ |= {"_plan": MemoryPlan(LLAMA, memory), "_memory": memory}
    return checks, Settings.model_validate({"context": 8192, "slots": 4, **settings})


def test_llama_3_1_8b_on_16_gib() -> None:
    checks, settings = checks_of(16 << 30)

    memory = "weights 4.9 GB, 4 slots of 8,192 tokens 4.3 GB (128 KiB a token), of 17.2 GB"
    assert str(run_check(checks.memory, settings)) == f"ok   memory: {memory}"
    slots = "at most 20 of 4,096 tokens, 10 of 8,192 tokens, 5 of 16,384 tokens, 2 of 32,768 tokens, 1 of 65,536 tokens"
    assert str(run_check(checks.slots, settings)) == f"ok   slots: {slots}"


def test_a_context_that_does_not_fit_names_one_that_does() -> None:
    checks, settings = checks_of(8 << 30)

    finding = run_check(checks.memory, settings)

    assert (finding.verdict, finding.remedy) == ("FAIL", "set SANGHA_CONTEXT to 4950 or less, or fewer SANGHA_SLOTS")


def test_weights_that_do_not_fit_need_a_smaller_model() -> None:
    checks, settings = checks_of(4 << 30)

    assert run_check(checks.memory, settings).remedy.startswith("choose a smaller quantisation")
    assert run_check(checks.slots, settings).verdict == "FAIL"
