"""A real worker process for tests of the web application."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench.harness.processes import ConfiguredWorker, changed
from models.platform.settings import Settings
from ops.embedded_servers import running_server


@contextmanager
def run_worker(
    settings: Settings, pools: Sequence[str], folder: Path, script: str = "tokens=20,rate=0"
) -> Iterator[None]:
    """Run a worker process of these pools, on the queue of `api_client.app_client`."""
    for name in ("run", "logs"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    settings = changed(settings, broker_url=f"{settings.redis_address}?db=9", script=script)
    with running_server(ConfiguredWorker("worker", settings, pools), folder / "run", folder / "logs"):
        yield
