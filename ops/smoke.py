"""Run the steps of `sangha smoke` one after the other, and report each with its time."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass

import click
import httpx2

from ops.smoke_client import SmokeClient, StepFailed
from ops.smoke_steps import (
    CLEANUP,
    STEPS,
    erase_user,
    sign_up,
    use_key,
)

Step = Callable[[SmokeClient], str]


@dataclass(frozen=True, slots=True)
class StepResult:
    """What became of a step. `detail` describes it, or its failure."""

    step: str
    ok: bool
    seconds: float
    detail: str
    request_id: str | None = None


def run_smoke(url: str, *, key: str | None, model: str, timeout: float, as_json: bool) -> bool:
    """Run all steps until one fails, then delete what they made. Returns whether all of them succeeded."""
    with SmokeClient(url, model=model, timeout=timeout) as client:
        succeeded = _run_until_failure(client, key, as_json=as_json)
        cleaned = all(_report(_run(client, step), as_json=as_json) for step in _cleanup(client, key))
    return succeeded and cleaned


def _run_until_failure(client: SmokeClient, key: str | None, *, as_json: bool) -> bool:
    access = sign_up if key is None else use_key(key)
    ready, *others = STEPS
    return all(_report(_run(client, step), as_json=as_json) for step in (ready, access, *others))


def _cleanup(client: SmokeClient, key: str | None) -> list[Step]:
    if not client.authenticated:
        return []
    return list(CLEANUP) if key is not None else [erase_user]


def _run(client: SmokeClient, step: Step) -> StepResult:
    """Run a step within the client's time. Requests that fail are failures of the step."""
    client.begin_step()
    name, start = step.__name__.replace("_", " "), time.monotonic()
    try:
        detail = step(client)
    except StepFailed as error:
        return StepResult(name, False, time.monotonic() - start, str(error), client.request_id)
    except httpx2.HTTPError as error:
        detail = f"{client.last_call}: {str(error) or type(error).__name__}"
        return StepResult(name, False, time.monotonic() - start, detail, client.request_id)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        detail = f"{client.last_call}: unexpected answer ({type(error).__name__}: {error})"
        return StepResult(name, False, time.monotonic() - start, detail, client.request_id)
    return StepResult(name, True, time.monotonic() - start, detail)


def _report(result: StepResult, *, as_json: bool) -> bool:
    click.echo(_json_line(result) if as_json else _text_line(result))
    return result.ok


def _json_line(result: StepResult) -> str:
    line = {
        "step": result.step,
        "ok": result.ok,
        "seconds": round(result.seconds, 3),
        "detail": result.detail,
        "request_id": result.request_id,
    }
    return json.dumps(line)


def _text_line(result: StepResult) -> str:
    request = f" (request {result.request_id})" if result.request_id else ""
    status = "ok    " if result.ok else "FAILED"
    return f"{status} {result.seconds:7.2f} s  {result.step}: {result.detail}{request}"
