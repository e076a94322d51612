"""The web process: uvicorn with our bounds, our shutdown, and one line for what stops it from starting."""

import asyncio
import gc
import logging
import resource
import signal
import socket
import sys

import uvicorn
from starlette.applications import Starlette

from models.platform.errors import ConfigurationError
from models.platform.settings import Settings, variable_name
from web.api.platform import Platform
from web.app import build
from web.http.protocol import BoundedProtocol

log = logging.getLogger(__name__)

#: Seconds that requests have to end once the process was asked to stop.
GRACE = 5

#: Seconds that an idle connection is kept; longer than the 60 s after which most load balancers let theirs go, so that
#: it is they who close first and no request meets a closing connection.
KEEP_ALIVE = 75

#: Connections that may wait to be accepted; a burst of ten thousand streams comes in faster than they are greeted.
BACKLOG = 4096


#: How many new objects the garbage collector lets come before it looks at them, and how many such looks before it looks
#: at older ones. A request makes some hundreds, nearly all of which go by themselves.
COLLECTOR = (5000, 20, 20)


class Server(uvicorn.Server):
    """uvicorn, ending open streams before it waits for requests."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Streams have no end of their own to wait for; their clients go on elsewhere from their last id."""
        platform: Platform = self.config.app.state.platform  # type: ignore[union-attr]
        platform.close_streams()
        # Those who wait for the end of a turn get most of the grace, then hear how far it has come.
        asyncio.get_running_loop().call_later(GRACE * 0.8, platform.tail.close_followers)
        await super().shutdown(sockets)


def serve(settings: Settings) -> None:
    """Run the web process until TERM or INT. Raises ConfigurationError when the port is taken."""
    raise_file_limit()
    app = build(settings)
    listener = bind(settings)
    spare_collector()
    # uvicorn raises the signal again once it has stopped: that is our way out, with 0 for an orderly end.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    Server(configure(app)).run(sockets=[listener])


def configure(app: Starlette) -> uvicorn.Config:
    """How uvicorn runs the application."""
    return uvicorn.Config(
        app,
        http=BoundedProtocol,
        loop="uvloop",
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
    """The listening socket. Raises ConfigurationError with one line that names the setting."""
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
        raise ConfigurationError(f"{where}: {settings.host} can't be listened on there: {error.strerror}") from None
    log.info("listening on %s port %s", *listener.getsockname()[:2])
    return listener


def spare_collector() -> None:
    """Keep the garbage collector from what is loaded: it stays for good, and looking through it stops all streams."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECTOR)


def raise_file_limit() -> None:
    """Each stream is an open file: take as many as the system gives."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
