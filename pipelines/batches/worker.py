"""What the attempts of a batch work with, and for whom its lines run."""

from dataclasses import dataclass, replace

from models.accounts.plans import Allowance
from models.batches import batch_callers
from models.batches.batches import Batch
from models.billing.prepaid import METHOD_GATEWAYS
from models.platform.database import Connection, Database
from models.platform.object_store import ObjectStore
from models.platform.settings import Settings
from models.serving.served_models import ServedModels, read_models
from pipelines.inference.registry import default_description
from pipelines.requests.lines import LineContext
from pipelines.requests.serving import Serving


@dataclass(frozen=True, slots=True)
class BatchWorker:
    """What the attempts of one worker process share."""

    settings: Settings
    objects: ObjectStore


@dataclass(frozen=True, slots=True)
class BatchContext:
    """For whom the lines of a batch run, and with which models. `allowance` is that of each turn."""

    line: LineContext
    allowance: Allowance

    @property
    def models(self) -> ServedModels:
        """The known models."""
        return self.line.serving.models


def read_context(worker: BatchWorker, database: Database, batch: Batch) -> BatchContext | None:
    """Return the context of a batch's lines; None if its user has left the account."""
    settings = worker.settings
    with database.connection() as connection:
        models = _read_models(connection, settings)
        auth_context = batch_callers.read(connection, batch)
    if auth_context is None:
        return None
    allowance = Allowance(
        auth_context.limits,
        context=models.default.description.context,
        billed=auth_context.billed,
        method_required=settings.gateway in METHOD_GATEWAYS,
    )
    # A batch draws nothing from the limits per minute, which are for those who wait.
    allowance = replace(allowance, limits=replace(allowance.limits, tokens_per_minute=None))
    line = LineContext(Serving(settings, models), database, auth_context.caller, allowance.limits)
    return BatchContext(line, allowance)


def read_known_models(worker: BatchWorker, database: Database) -> ServedModels:
    """Return the known models."""
    with database.connection() as connection:
        return _read_models(connection, worker.settings)


def _read_models(connection: Connection, settings: Settings) -> ServedModels:
    return read_models(connection, default_description(settings), explicit=settings.default_model is not None)
