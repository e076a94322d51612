"""The models that workers serve or have served, as their workers describe them.

A worker writes a row for each of its models before it claims a job. The row stays when the worker stops, so that turns
of the model can be enqueued while no worker serves it. Which models are served now is in `workers.served`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from psycopg.types.json import Jsonb

from models.jobs.catalogue import batch_queue
from models.jobs.windows import RECENT
from models.platform.database import Connection, fetch_all
from models.platform.errors import NotFound
from models.platform.texts import truncate
from models.serving.queues import DEFAULT_QUEUE, is_endpoint_queue, model_queue

#: The name of the default model for callers that do not know which models there are.
DEFAULT_ALIAS = "default"

#: Days after which a model without a worker is forgotten.
DAYS_KNOWN = 7


@dataclass(frozen=True, slots=True)
class ModelDescription:
    """What is known about a model without loading it. Its worker knows best; until it runs, the settings say.

    endpoint             the upstream that serves it; empty: a local engine
    engine               the engine's name: `llamacpp`, `openai`, …
    context              tokens of prompt and answer together
    slots                concurrent answers of one worker
    parameters           the optional parameters of requests that it honours, sorted
    sampling_defaults    temperature, top_p and penalties where the request has none
    may_reason           whether it may reason before its answer
    is_local             whether it runs in the network of the installation
    supports_reflection  whether it is good enough to write facts and insights
    continues            whether the engine continues a partial answer
    takes_spilled        whether turns that wait for local models are moved to it
    """

    name: str
    endpoint: str = ""
    engine: str = ""
    context: int = 4096
    slots: int = 1
    parameters: Sequence[str] = ()
    sampling_defaults: Mapping[str, float] = field(default_factory=dict)
    may_reason: bool = True
    is_local: bool = True
    supports_reflection: bool = False
    continues: bool = True
    takes_spilled: bool = False


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A known model.

    id     its name in requests: that of the description, preceded by the endpoint if another model has the same name
    queue  the queue of its interactive turns
    slots  the slots of the live workers that serve it; 0: none does
    """

    id: str
    description: ModelDescription
    queue: str
    slots: int = 0

    @property
    def is_available(self) -> bool:
        """Whether a live worker serves it."""
        return self.slots > 0


class ServedModels:
    """The known models, of which one is the default."""

    def __init__(self, models: Iterable[ServedModel], default: ServedModel) -> None:
        self.default = default
        self._by_id = {model.id: model for model in models}
        self._by_path = {
            f"{model.description.endpoint}/{model.description.name}": model
            for model in self._by_id.values()
            if model.description.endpoint
        }

    def __iter__(self) -> Iterator[ServedModel]:
        return iter(self._by_id.values())

    def find(self, name: str | None) -> ServedModel | None:
        """Return the model that a request names; the default one for None and `default`."""
        if name in (None, DEFAULT_ALIAS) and name not in self._by_id:
            return self.default
        return self._by_id.get(name or "") or self._by_path.get(name or "")

    def resolve(self, name: str | None) -> ServedModel:
        """Return the model that a request names. Raises NotFound, which names the models that there are."""
        if (model := self.find(name)) is None:
            known = ", ".join(f"'{each}'" for each in [*self._by_id, DEFAULT_ALIAS])
            raise NotFound(
                f"The model '{truncate(str(name))}' does not exist. Available models are: {known}.",
                param="model",
                code="model_not_found",
            )
        return model


# One model has a queue of local engines: another one that had it before gets the queue of its name.
REGISTER = """
INSERT INTO served_models (model_name, model_endpoint, model_queue, description)
VALUES (%(name)s, %(endpoint)s, %(queue)s, %(description)s)
ON CONFLICT (model_name, model_endpoint) DO UPDATE SET
    model_queue = excluded.model_queue, description = excluded.description, described_at = now()
"""

OTHERS_OF_QUEUE = """
SELECT model_name FROM served_models
WHERE model_queue = %(queue)s AND model_queue NOT LIKE 'upstream.%%' AND model_name <> %(name)s
"""

CHANGE_QUEUE = "UPDATE served_models SET model_queue = %(queue)s WHERE model_name = %(name)s AND model_queue = %(old)s"

# The jobs of a model that was not the default and is now, or the reverse, wait in the queue that it had.
MOVE_JOBS = """
WITH left_behind AS (
    SELECT id AS moved_id FROM jobs
    WHERE queue = %(old)s AND state IN ('scheduled', 'queued', 'waiting') ORDER BY id DESC FOR NO KEY UPDATE
)
UPDATE jobs SET queue = %(queue)s, published_at = NULL FROM left_behind WHERE id = moved_id
"""


def register(connection: Connection, description: ModelDescription, queue: str) -> None:
    """Store what a worker serves, before it claims the first job. Call it in a transaction."""
    row = {"name": description.name, "endpoint": description.endpoint, "queue": queue}
    for other in fetch_all(connection, OTHERS_OF_QUEUE, row):
        name = other["model_name"]
        connection.execute(CHANGE_QUEUE, {"name": name, "queue": model_queue(name, description.name), "old": queue})
    connection.execute(REGISTER, {**row, "description": Jsonb(asdict(description))})
    if queue == DEFAULT_QUEUE:
        adopt_jobs(connection, description.name)


def adopt_jobs(connection: Connection, default_model: str) -> None:
    """Move the jobs of the default model that wait in the queue of its name, which no worker serves any more."""
    own = model_queue(default_model, "")
    for old, queue in ((own, DEFAULT_QUEUE), (batch_queue(own), batch_queue(DEFAULT_QUEUE))):
        connection.execute(MOVE_JOBS, {"old": old, "queue": queue})


RENEW = """
UPDATE served_models SET described_at = now()
WHERE model_name = ANY(%(names)s) AND described_at < now() - interval '1 hour'
"""

FORGET = """
DELETE FROM served_models WHERE described_at < now() - make_interval(days => %(days)s)
"""


def renew(connection: Connection, served: Sequence[ServedModel]) -> None:
    """Keep the models of a running worker from being forgotten, and adopt jobs as `register` does.

    A web process may have inserted some meanwhile that had read the default model before.
    """
    connection.execute(RENEW, {"names": [model.description.name for model in served]})
    for model in served:
        if model.queue == DEFAULT_QUEUE:
            adopt_jobs(connection, model.description.name)


def worker_entry(model: ServedModel) -> Mapping[str, Any]:
    """Return what the row of its worker says about a model."""
    description = model.description
    return {
        "model": description.name,
        "endpoint": description.endpoint,
        "queue": model.queue,
        "slots": description.slots,
    }


QUEUE_OF = """
SELECT model_queue FROM served_models WHERE model_name = %(name)s AND model_queue NOT LIKE 'upstream.%%'
ORDER BY described_at DESC LIMIT 1
"""


KNOWN = """
SELECT FROM served_models
WHERE model_name = %(name)s OR model_endpoint <> '' AND model_endpoint || '/' || model_name = %(name)s
"""


def is_known(connection: Connection, name: str) -> bool:
    """Return whether a worker serves a model or has served it within DAYS_KNOWN."""
    return bool(fetch_all(connection, KNOWN, {"name": name}))


def local_queue(connection: Connection, name: str) -> str:
    """Return the queue of a local model, also of one that is not known any more."""
    rows = fetch_all(connection, QUEUE_OF, {"name": name})
    return str(rows[0]["model_queue"]) if rows else model_queue(name, "")


def delete_forgotten(connection: Connection) -> int:
    """Delete the models that no worker has served for DAYS_KNOWN. Returns how many."""
    return connection.execute(FORGET, {"days": DAYS_KNOWN}).rowcount


# A worker counts with the threads of the model's queue that it has registered: none once its process is known to be
# dead.
LIST = """
SELECT model_name, model_endpoint, model_queue, description, coalesce((
    SELECT sum(coalesce((queue_threads ->> (entry ->> 'queue'))::int, 0))
    FROM workers CROSS JOIN LATERAL jsonb_array_elements(served) AS entry
    WHERE pid > 0 AND seen_at > now() - make_interval(secs => %(recent)s)
      AND entry ->> 'model' = model_name AND coalesce(entry ->> 'endpoint', '') = model_endpoint), 0)::int AS slots
FROM served_models ORDER BY model_endpoint, model_name
"""

# Workers of the previous version do not say what they serve: it is the default model.
UNDESCRIBED = """
SELECT coalesce(sum(coalesce((queue_threads ->> 'inference')::int, threads)), 0)::int AS slots FROM workers
WHERE pid > 0 AND seen_at > now() - make_interval(secs => %(recent)s) AND served = '[]' AND 'inference' = ANY(queues)
"""


def read_models(connection: Connection, fallback: ModelDescription, *, explicit: bool = False) -> ServedModels:
    """Return the known models.

    fallback  the default model as the settings describe it, used until its worker has described it
    explicit  whether an operator has named the default model. Otherwise the workers know it: it is the one that they
              serve from the default queue, or the only one
    """
    rows = [_served_model(row) for row in fetch_all(connection, LIST, {"recent": RECENT})]
    (undescribed,) = fetch_all(connection, UNDESCRIBED, {"recent": RECENT})
    slots = int(undescribed["slots"])
    by_name = {model.description.name: model for model in rows if not is_endpoint_queue(model.queue)}
    served = next((model for model in by_name.values() if model.queue == DEFAULT_QUEUE and model.is_available), None)
    if served is not None and not explicit:
        default = served
    elif fallback.name in by_name:
        default = by_name[fallback.name]
    elif len(by_name) == 1 and not explicit and not slots:
        (default,) = by_name.values()
    else:
        rows.insert(0, default := ServedModel(fallback.name, fallback, DEFAULT_QUEUE))
    if default.queue == DEFAULT_QUEUE and slots:
        rows[rows.index(default)] = default = replace(default, slots=default.slots + slots)
    return ServedModels(_with_ids(rows), default)


def _served_model(row: Mapping[str, Any]) -> ServedModel:
    known = {each.name for each in fields(ModelDescription)}
    stored = {name: value for name, value in row["description"].items() if name in known}
    description = ModelDescription(**{"name": row["model_name"], **stored})
    return ServedModel(row["model_name"], description, row["model_queue"], row["slots"])


def _with_ids(models: Sequence[ServedModel]) -> list[ServedModel]:
    """Give each model an id of its own. Models of the inference pool come first, and so have plain names."""
    taken: set[str] = set()
    named = []
    for model in sorted(models, key=lambda each: is_endpoint_queue(each.queue)):
        name, endpoint = model.description.name, model.description.endpoint
        named.append(replace(model, id=f"{endpoint}/{name}" if name in taken and endpoint else name))
        taken.add(name)
    return named
