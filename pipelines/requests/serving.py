"""The settings and the known models, with which a request's body becomes a turn."""

from dataclasses import dataclass

from models.platform.settings import Settings
from models.serving.queues import DEFAULT_QUEUE
from models.serving.served_models import ModelDescription, ServedModel, ServedModels
from pipelines.agents.agent_turns import is_agent
from pipelines.inference.registry import default_description


@dataclass(frozen=True, slots=True)
class Serving:
    """The settings and the known models."""

    settings: Settings
    models: ServedModels

    @classmethod
    def of(cls, settings: Settings) -> "Serving":
        """Return the models as the settings know them: only the default one."""
        description = default_description(settings)
        model = ServedModel(description.name, description, DEFAULT_QUEUE)
        return cls(settings, ServedModels([model], model))

    def resolve(self, name: str | None) -> str:
        """Return the id of a model, also for `default` and None, and that of an agent as it is.

        Raises NotFound for another name, as OpenAI. Whether the agent exists is found when the turn begins.
        """
        return str(name) if is_agent(name) else self.models.resolve(name).id

    def description(self, name: str | None) -> ModelDescription | None:
        """Return the description of the model that a request names; None for an agent. Raises NotFound."""
        return None if is_agent(name) else self.models.resolve(name).description
