"""A real worker behind the whole door."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from models.settings import Settings
from ops.services import WorkerProcess
from ops.servers import running_server
from tests.journeys.stack import named


@contextmanager
def working(settings: Settings, pools: Sequence[str], folder: Path, script: str = "tokens=20,rate=0") -> Iterator[None]:
    """A worker process of these pools, on the queue of `visiting.whole_door`."""
    for name in ("run", "logs"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    settings = settings.model_copy(update={"broker_url": f"{settings.redis_address}?db=9"})
    part = named(
        "worker", WorkerProcess("worker", settings, pools), settings, broker_url=settings.broker_address, script=script
    )
    with running_server(part, folder / "run", folder / "logs"):
        yield
