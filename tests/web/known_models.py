"""The models of an application without Postgres."""

from models.platform.settings import Settings
from models.serving.state import ServingCache, ServingState
from pipelines.requests.serving import Serving


class KnownModels(ServingCache):
    """The models that the settings know."""

    def __init__(self, settings: Settings) -> None:
        self._known = ServingState(Serving.of(settings).models)

    def is_ready(self) -> bool:
        return True

    def state(self) -> ServingState:
        return self._known

    def latest(self) -> ServingState:
        return self._known

    def renew(self) -> ServingState:
        return self._known
