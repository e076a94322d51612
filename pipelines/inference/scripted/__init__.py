"""An engine that plays a script, for tests and measurements: `SANGHA_ENGINE=scripted`."""

from models.platform.settings import Settings
from pipelines.inference.engine import Engine
from pipelines.inference.registry import OPTIONAL_PARAMETERS, EngineSpec, EngineStatus

MODEL_NAME = "scripted"

#: Sampling has no effect on a script, whose tokens have the probability 1. A bias is rejected, since scripts have no
#: token numbers.
PARAMETERS = OPTIONAL_PARAMETERS - {"logit_bias"}


def _load(settings: Settings) -> Engine:
    from pipelines.inference.scripted.engine import ScriptedEngine

    return ScriptedEngine(settings)


def _model_name(settings: Settings) -> str:
    return settings.model_name or MODEL_NAME


def _check(settings: Settings) -> EngineStatus:
    return EngineStatus("scripted: every turn gets the same answer", remedy="unset SANGHA_ENGINE")


def _supports_reflection(settings: Settings) -> bool:
    return False


def _may_reason(settings: Settings) -> bool:
    return settings.script.reasoning > 0


ENGINE = EngineSpec(
    _load, _model_name, _check, _supports_reflection, parameters=lambda _: PARAMETERS, may_reason=_may_reason
)
