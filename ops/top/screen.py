"""Run `sangha top`: redraw until `q`, or print once, as text or as JSON."""

import os
import select
import signal
import sys
import termios
import time
import tty
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict

import orjson
from rich.console import Console
from rich.live import Live

from models.platform.errors import SanghaError
from models.platform.redis_client import connect
from models.platform.settings import Settings
from ops.top.snapshot import Snapshot, SnapshotReader, read_once
from ops.top.view import View, problems
from ops.version import version

#: Seconds over which one snapshot measures rates.
ONCE = 1.0

#: Keys that end the view; empty: the terminal is gone.
QUIT_KEYS = frozenset({b"q", b"Q", b""})

HINT = "q quit · sangha pools, sangha dead list and sangha breakers list show more"


def top(settings: Settings, *, interval: float, once: bool, as_json: bool, metrics_urls: Sequence[str] = ()) -> None:
    """Show the installation every `interval` seconds until `q`; once where standard output is no terminal.

    Raises Unavailable where the first snapshot cannot be read.
    """
    with connect(settings.redis_address) as client:
        if as_json:
            print(to_json(read_once(settings, client, metrics_urls, ONCE)))
        elif once or not (sys.stdout.isatty() and sys.stdin.isatty()):
            Console(highlight=False).print(View(read_once(settings, client, metrics_urls, ONCE)))
        else:
            _watch(SnapshotReader(settings, client, metrics_urls), interval)


def to_json(snapshot: Snapshot) -> str:
    """Return a snapshot as one JSON object."""
    totals = {
        "version": version(),
        "tokens_per_second": snapshot.tokens_per_second,
        "dead": snapshot.dead,
        "problems": problems(snapshot),
    }
    return orjson.dumps(asdict(snapshot) | totals, default=str).decode()


def _watch(reader: SnapshotReader, interval: float) -> None:
    """Redraw until a key of QUIT_KEYS. While a snapshot cannot be read, the last one stays, with the reason."""
    view = View(reader.read(), hint=HINT)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # leaves the blocks below, which restore the terminal
    console = Console(highlight=False)
    with suppress(KeyboardInterrupt), _keys(), Live(view, screen=True, auto_refresh=False, console=console) as live:
        live.refresh()
        while not _quit_within(interval):
            view = _next_view(reader, view)
            live.update(view, refresh=True)


def _next_view(reader: SnapshotReader, last: View) -> View:
    try:
        return View(reader.read(), hint=HINT)
    except SanghaError as error:
        return View(last.snapshot, problem=f"No newer state: {error}", hint=HINT)


def _quit_within(seconds: float) -> bool:
    """Wait for some seconds. Returns True at once for a key that ends the view."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        readable, _, _ = select.select([sys.stdin], [], [], left)
        if readable and os.read(sys.stdin.fileno(), 1) in QUIT_KEYS:
            return True
    return False


@contextmanager
def _keys() -> Iterator[None]:
    """Have the terminal pass keys at once and without echo."""
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    try:
        tty.setcbreak(descriptor)
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
