"""Run the web process: uvicorn with limited connections, a shutdown that ends streams, and one-line startup errors."""

import asyncio
import logging
import resource
import signal
import socket
import sys

import uvicorn
from starlette.applications import Starlette

from models.platform.errors import ConfigurationError
from models.platform.garbage_collector import freeze_garbage_collector
from models.platform.log_levels import LogLevelWatch
from models.platform.monitoring import MonitoringServer
from models.platform.settings import Settings, variable_name
from web.api.platform import Platform
from web.api.system.sibling_metrics import InstallationMetrics
from web.app import build
from web.http.protocol import BoundedProtocol
from web.http.tls import ServerTls, certificate_files

log = logging.getLogger(__name__)

#: Seconds that requests have to end after the process was asked to stop.
GRACE = 5

#: Seconds that an idle connection is kept; longer than the 60 s of most load balancers, so that they close first and no
#: request is sent on a connection that is being closed.
KEEP_ALIVE = 75

#: Connections that may wait to be accepted: a burst of ten thousand streams arrives faster than it is accepted.
BACKLOG = 4096


class Server(uvicorn.Server):
    """uvicorn that watches its event loop, and ends open streams before it waits for requests."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start listening, and watch the event loop."""
        await super().startup(sockets)
        platform: Platform | None = getattr(self.config.app.state, "platform", None)  # type: ignore[union-attr]
        if platform is not None:  # opened by a startup without an error
            platform.watchdog.start()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End all streams, whose clients reconnect to another process with their last id, then wait for requests."""
        platform: Platform = self.config.app.state.platform  # type: ignore[union-attr]
        platform.watchdog.stop()
        platform.close_streams()
        # Requests that wait for the end of a turn get most of the grace period, then respond with its current state.
        asyncio.get_running_loop().call_later(GRACE * 0.8, platform.tail.close_followers)
        await super().shutdown(sockets)


def serve(settings: Settings) -> None:
    """Run the web process until TERM or INT. Raises ConfigurationError for a taken port or a wrong certificate."""
    raise_file_limit()
    files = certificate_files(settings)
    tls = ServerTls(files).start() if files else None
    app = build(settings)
    listener = bind(settings)
    if settings.metrics_address is not None:
        MonitoringServer(settings, InstallationMetrics(settings, app.state.metrics).render).start()
    LogLevelWatch(settings).start()
    freeze_garbage_collector()
    # uvicorn raises the signal again after its shutdown: exit with status 0 then.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    Server(configure(app, tls)).run(sockets=[listener])


def configure(app: Starlette, tls: ServerTls | None = None) -> uvicorn.Config:
    """Build uvicorn's configuration."""
    return uvicorn.Config(
        app,
        http=BoundedProtocol,
        loop="web.http.tls:TlsLoop" if tls else "uvloop",
        ssl_context_factory=(lambda *_: tls.context) if tls else None,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=GRACE,
    )


def bind(settings: Settings) -> socket.socket:
    """Open the listening socket. Raises ConfigurationError with one line that names the setting."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ConfigurationError(f"{variable_name('host')} is {settings.host!r}: {error.strerror}") from None
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
    except OSError as error:
        listener.close()
        where = f"{variable_name('port')} is {settings.port}"
        raise ConfigurationError(f"{where}: cannot listen on {settings.host}: {error.strerror}") from None
    log.info("Listening on %s port %s", *listener.getsockname()[:2])
    return listener


def raise_file_limit() -> None:
    """Raise the limit of open files to the system's maximum: each stream is an open file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
