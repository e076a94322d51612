"""`sangha doctor --model PATH`: whether a model fits on this machine, with how many slots, and how fast it is."""

from collections.abc import Sequence
from functools import cached_property
from math import prod
from pathlib import Path

from models.platform.settings import Settings
from ops.doctor.finding import Check, Finding
from ops.doctor.model_run import ModelRun, run_model
from pipelines.inference.llamacpp.context_size import ModelSize, context_of, model_size
from pipelines.inference.llamacpp.gguf_files import check_gguf
from pipelines.inference.llamacpp.gguf_metadata import GgufContents, read_contents
from pipelines.inference.llamacpp.gguf_weights import missing_bytes, quantisation
from pipelines.inference.llamacpp.memory_plan import MemoryPlan
from pipelines.inference.machine import usable_memory

#: Contexts for which the number of slots is printed, up to the model's own.
CONTEXTS = (4096, 8192, 16_384, 32_768, 65_536, 131_072)

#: Generated tokens a second below which people wait for an answer: as fast as they read.
READING_SPEED = 5.0

DOWNLOAD = "download the file again, or choose another quantisation"
SMALLER = "choose a smaller quantisation, such as Q4_K_M, or a smaller model"


class ModelChecks:
    """The checks of one model file."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @property
    def checks(self) -> Sequence[Check]:
        """All checks, in the order in which they are printed."""
        return (self.model_file, self.memory, self.slots, self.prompt_format, self.speed)

    def model_file(self, settings: Settings) -> Finding:
        """Check that the file is complete, and that the engine knows its kind."""
        contents = self._contents
        if missing := missing_bytes(contents, self._file.stat().st_size):
            return Finding("FAIL", "model", f"the last {missing:,} bytes of {self._file.name} are missing", DOWNLOAD)
        weights = sum(prod(tensor.shape) for tensor in contents.tensors)
        architecture = contents.metadata.get("general.architecture", b"?").decode()
        size = f"{weights / 1e9:.2g} billion weights, mostly {quantisation(contents)}"
        if settings.engine == "ctransformers":
            from pipelines.inference.ctransformers.model_file import check_file

            check_file(settings)
        return Finding("ok", "model", f"{self._file.name}: {architecture}, {size}, {_bytes(self._file.stat().st_size)}")

    def memory(self, settings: Settings) -> Finding:
        """Check that weights and contexts fit with the settings' slots and context."""
        if self._plan is None:
            return Finding(
                "warn", "memory", "the file does not say how large a context is", "try a small SANGHA_CONTEXT"
            )
        context, plan = context_of(settings, self._memory), self._plan
        contexts = settings.slots * plan.context_bytes(context)
        token = f"{plan.size.token_bytes / 1024:g} KiB a token"
        parts = (
            f"weights {_bytes(plan.size.file_bytes)}, {settings.slots} slots of {context:,} tokens {_bytes(contexts)}"
        )
        detail = f"{parts} ({token}), of {_bytes(self._memory)}"
        if plan.available < 0:
            return Finding("FAIL", "memory", detail, SMALLER)
        if plan.missing(settings.slots, context):
            remedy = f"set SANGHA_CONTEXT to {plan.max_context(settings.slots)} or less, or fewer SANGHA_SLOTS"
            return Finding("FAIL", "memory", detail, remedy)
        return Finding("ok", "memory", detail)

    def slots(self, settings: Settings) -> Finding:
        """Tell how many slots fit with each context."""
        if self._plan is None:
            return Finding("warn", "slots", "unknown")
        contexts = [context for context in CONTEXTS if context <= self._plan.size.trained_context]
        numbers = {context: self._plan.max_slots(context) for context in contexts or [self._plan.size.trained_context]}
        detail = ", ".join(f"{number} of {context:,} tokens" for context, number in numbers.items() if number)
        return Finding("ok", "slots", f"at most {detail}") if detail else Finding("FAIL", "slots", "none fits", SMALLER)

    def prompt_format(self, settings: Settings) -> Finding:
        """Tell what the model's chat template supports."""
        run = self._run
        if not run.has_template:
            detail, remedy = (
                "the file has no chat template, and a common one is used",
                "choose an instruct model's file",
            )
            return Finding("warn", "prompt format", detail, remedy)
        reasoning = "reasons before it answers" if run.reasons else "no reasoning"
        return Finding("ok", "prompt format", f"its own chat template; tools {run.tools}; {reasoning}")

    def speed(self, settings: Settings) -> Finding:
        """Measure a short run."""
        run = self._run
        speeds = f"reads {run.prompt_speed:,.0f} tokens a second and writes {run.speed:,.1f}"
        detail = f"loaded in {run.load_seconds:.1f} s, {speeds}, one at a time"
        if run.speed < READING_SPEED:
            return Finding("warn", "speed", detail, "use a GPU build, a smaller model, or an upstream beside this one")
        return Finding("ok", "speed", detail)

    @cached_property
    def _file(self) -> Path:
        return check_gguf("model", self._settings.model or "")

    @cached_property
    def _contents(self) -> GgufContents:
        return read_contents(self._file)

    @cached_property
    def _memory(self) -> int:
        from pipelines.inference.llamacpp.devices import gpu_memory

        return gpu_memory() or usable_memory()

    @cached_property
    def _plan(self) -> MemoryPlan | None:
        size: ModelSize | None = model_size(self._file)
        return MemoryPlan(size, self._memory) if size else None

    @cached_property
    def _run(self) -> ModelRun:
        has_template = "tokenizer.chat_template" in self._contents.metadata
        return run_model(self._settings, has_template=has_template)


def _bytes(number: int) -> str:
    return f"{number / 1e9:.1f} GB" if number >= 1e9 else f"{number / 1e6:.0f} MB"
