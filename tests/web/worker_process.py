"""A real worker process for tests of the web application."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from models.platform.settings import Settings
from ops.servers import running_server
from ops.services import WorkerProcess
from tests.journeys.stack import named


@contextmanager
def run_worker(
    settings: Settings, pools: Sequence[str], folder: Path, script: str = "tokens=20,rate=0"
) -> Iterator[None]:
    """A worker process of these pools, on the queue of `api_client.app_client`."""
    for name in ("run", "logs"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    settings = settings.model_copy(update={"broker_url": f"{settings.redis_address}?db=9"})
    part = named(
        "worker", WorkerProcess("worker", settings, pools), settings, broker_url=settings.broker_address, script=script
    )
    with running_server(part, folder / "run", folder / "logs"):
        yield
