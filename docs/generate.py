"""Write the reference tables of docs/reference/ from the code: `python -m docs.generate [--check]`.

With `--check` nothing is written; the exit code is 1 when a page differs from the code.
"""

import ast
import inspect
import json
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import click
from prometheus_client.metrics import MetricWrapperBase
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from docs.markdown import Row, page, table
from docs.source_code import ROOT, assigned_value, literal, strings, trees
from models.delivery.event_types import EVENT_TYPES
from models.jobs.catalogue import CATALOGUE, POOLS, PREFIXES
from models.journal.events import ENDINGS, EXTENSION_EVENTS, STREAM_EVENTS
from models.platform import errors, metrics
from models.platform.metrics import ScrapedMetric
from models.platform.script import Script
from models.platform.settings import Settings, variable_name
from models.platform.upstreams import VARIABLES as UPSTREAM_VARIABLES
from ops.cli import main as sangha
from pipelines.requests.errors import KINDS

REFERENCE = ROOT / "docs" / "reference"

#: Statuses and default codes of errors that are no RequestError, by the class's name.
OTHER_ERRORS = {
    "JobFailed": ("500", "server_error"),
    "WaitTimedOut": ("504", "timeout"),
    "Unavailable": ("503", "service_unavailable"),
    "PermanentFailure": ("job", "server_error"),
    "BudgetExhausted": ("job", "budget_exhausted"),
    "EffectUnknown": ("job", "effect_unknown"),
}

#: A type of OpenAI's events; other texts that look like one are types of objects, or of webhooks.
STANDARD_EVENT = re.compile(r"response(\.[a-z_]+)+")
OBJECT_TYPES = {"response.input_tokens", "response.deleted", "response.compaction", "response.cancelled"}


def main() -> int:
    """Write the pages, or compare them; returns the exit code."""
    pages = {
        "settings.md": settings_page(),
        "commands.md": commands_page(),
        "job-kinds.md": job_kinds_page(),
        "events.md": events_page(),
        "errors.md": errors_page(),
        "metrics.md": metrics_page(),
    }
    if "--check" not in sys.argv[1:]:
        for name, text in pages.items():
            (REFERENCE / name).write_text(text, encoding="utf-8")
        return 0
    outdated = [name for name, text in pages.items() if not is_current(REFERENCE / name, text)]
    for name in outdated:
        print(f"docs/reference/{name} is out of date: run python -m docs.generate")
    if not outdated:
        print("The reference pages match the code.")
    return 1 if outdated else 0


def is_current(path: Path, text: str) -> bool:
    """Return whether a page has this text."""
    return path.exists() and path.read_text(encoding="utf-8") == text


# Settings


def settings_page() -> str:
    """Return the page of environment variables, in the order of the fields of `Settings`."""
    fields = table(["Variable", "Type", "Default", "Meaning"], map(setting_row, Settings.model_fields.items()))
    script = table(["Key", "Type", "Default", "Meaning"], (script_row(*item) for item in Script.model_fields.items()))
    return page(
        "Settings",
        "Environment variables, read once at the start. An unset or empty variable has the default. A malformed one\n"
        "stops the process with one line that names it.",
        fields,
        "`SANGHA_OIDC_PROVIDERS` and `SANGHA_UPSTREAMS` name groups of variables: see\n"
        "[Let users log in with OIDC](../guides/operate.md#let-users-log-in-with-oidc) and\n"
        "[Use a hosted model](../guides/operate.md#use-a-hosted-model).",
        "## SANGHA_UPSTREAM_NAME_…",
        "The variables of each name in `SANGHA_UPSTREAMS`, such as `SANGHA_UPSTREAM_GROQ_URL` of `groq`:",
        table(["Ending", "Meaning"], ((f"`{ending}`", meaning) for ending, meaning in UPSTREAM_VARIABLES.items())),
        "## SANGHA_SCRIPT",
        "The scripted engine serves tests and measurements. Its script is a list such as `tokens=20,rate=0`:",
        script,
    )


def setting_row(item: tuple[str, FieldInfo]) -> Row:
    """Return the table row of a setting."""
    name, field = item
    return (f"`{variable_name(name)}`", type_name(field.annotation), default(field), described(field))


def script_row(name: str, field: FieldInfo) -> Row:
    """Return the table row of a key of a script."""
    return (f"`{name}`", type_name(field.annotation), default(field), described(field))


def described(field: FieldInfo) -> str:
    """Return a field's description on one line. Raises ValueError where there is none."""
    if not field.description:
        raise ValueError(f"a setting lacks a description: {field!r}")
    return " ".join(field.description.split())


def type_name(annotation: Any) -> str:
    """Return the name of a type for readers."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return type_name(arguments[0])
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin in (Union, UnionType):
        return " or ".join(type_name(each) for each in arguments if each is not type(None))
    if origin is tuple:
        return "list of names"
    names = {str: "text", int: "integer", float: "number", bool: "boolean", Path: "path", Script: "script"}
    return names.get(annotation, getattr(annotation, "__name__", str(annotation)))


def default(field: FieldInfo) -> str:
    """Return a field's default for readers; an empty text where there is none."""
    value = field.get_default(call_default_factory=False)
    return "" if value in (None, (), "", PydanticUndefined) else f"`{value}`"


# Commands


def commands_page() -> str:
    """Return the page of the `sangha` command line."""
    sections = [command_section(path, command) for path, command in commands(sangha, ("sangha",))]
    return page("Commands", "The `sangha` command. `--help` prints the same.", *sections)


def commands(group: click.Group, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Yield each command below a group with its path, depth first, in the order of `--help`."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        elif command is not None:
            yield (*path, name), command


def command_section(path: tuple[str, ...], command: click.Command) -> str:
    """Return the section of one command: usage, help text, options."""
    context = click.Context(command, info_name=" ".join(path))
    usage = " ".join([*path, *command.collect_usage_pieces(context)])
    options = [option.get_help_record(context) for option in command.params if isinstance(option, click.Option)]
    rows = [(f"`{record[0]}`", record[1]) for record in options if record]
    parts = [f"## {' '.join(path)}", f"```sh\n{usage}\n```", inspect.cleandoc(command.help or "")]
    return "\n\n".join([*parts, table(["Option", "Meaning"], rows)] if rows else parts)


# Job kinds


def job_kinds_page() -> str:
    """Return the page of the job catalogue and of the pools."""
    kinds = (
        (
            f"`{name}`",
            f"`{kind.queue}`",
            str(kind.priority),
            f"{kind.time_limit:g} s",
            str(kind.attempts),
            f"{kind.backoff:g} s",
        )
        for name, kind in sorted(CATALOGUE.items())
    )
    of_models = {pool: (f"{prefix}NAME", f"{prefix}NAME_batch") for prefix, pool in PREFIXES.items()}
    pools = (
        (f"`{pool}`", ", ".join(f"`{queue}`" for queue in (*queues, *of_models.get(pool, ()))))
        for pool, queues in POOLS.items()
    )
    return page(
        "Job kinds",
        "Lower priorities run first. A job is dead after as many failures as it has attempts. The backoff is the\n"
        "delay before the second attempt and doubles with each further one.",
        table(["Kind", "Queue", "Priority", "Time limit", "Attempts", "Backoff"], kinds),
        "## Pools\n\nA pool is what `sangha worker POOL…` serves.",
        table(["Pool", "Queues"], pools),
    )


# Events


def events_page() -> str:
    """Return the page of event types."""
    extensions = ((f"`{name}`", meaning) for name, meaning in EXTENSION_EVENTS.items())
    literals = {*strings(), *(ending.decode() for ending in ENDINGS)}
    standard = sorted(text for text in literals - OBJECT_TYPES if STANDARD_EVENT.fullmatch(text))
    return page(
        "Events",
        "Every event has `type` and `sequence_number`, contiguous from 0 in a journal.",
        "## Extension events\n\n"
        "The streams of jobs and meditations have them, and those of responses with the header `X-Sangha-Events: all`.",
        table(["Type", "Meaning"], extensions),
        "## Events without a number\n\n"
        "The same streams have these between others. They are in no journal: they have no id and no\n"
        "`sequence_number`, and a stream that is resumed does not repeat them.",
        table(["Type", "Meaning"], ((f"`{name}`", meaning) for name, meaning in STREAM_EVENTS.items())),
        "## OpenAI's events\n\nThe types of [OpenAI's streaming\n"
        "reference](https://platform.openai.com/docs/api-reference/responses-streaming) that Sangha sends:",
        "\n".join(f"- `{name}`" for name in standard),
        "## Events of accounts\n\n"
        "[Webhooks](../guides/webhooks.md) and `GET /v1/events` have these types. `GET /v1/webhook_event_types` lists\n"
        "them, too.",
        table(
            ["Type", "Recorded when", "`data`, for example"],
            (
                (f"`{name}`", each.description, f"`{json.dumps(dict(each.sample))}`")
                for name, each in EVENT_TYPES.items()
            ),
        ),
        "## Stored events\n\n"
        "In the database, and so in `job_events` of an account's export, an event after a turn's first one may have\n"
        "null for large fields of its `response`, and the key `shared`: where the values of these fields begin and\n"
        "end in the first event's JSON, in bytes of UTF-8. Clients always receive whole events.",
    )


# Errors


def errors_page() -> str:
    """Return the page of error codes, found where the code raises them."""
    examples = {(code, status): description for code, status, description in default_codes()}
    found = sorted(raised_errors(), key=lambda each: (each[0], each[1], len(each[2]), each[2]))
    for code, status, message in found:
        if message:
            examples.setdefault((code, status), message)
    for code, status, _ in found:  # of an error that passes on a message, the message is where it comes from
        if passed_on := next((message for other, _, message in found if other == code and message), ""):
            examples.setdefault((code, status), passed_on)
    rows = ((f"`{code}`", status, message) for (code, status), message in sorted(examples.items()))
    return page(
        "Errors",
        'Every error is `{"error": {"message", "type", "param", "code"}}`. Decide by the status and `code`; the\n'
        "message is for people and may change. Specific codes are described by an example of their message, in which\n"
        "`…` stands for a value. The status `job` marks the `error` of a job or a response.",
        table(["Code", "Status", "Meaning or example"], rows),
    )


def default_codes() -> Iterator[tuple[str, str, str]]:
    """Yield the default code, the status and the description of each class of request errors that is raised with it."""
    raised = {(code, status) for code, status, _ in raised_errors()}
    for error in KINDS:
        status, code = status_and_code(error)
        if (code, status) in raised:
            yield code, status, (inspect.getdoc(error) or "").split("\n", 1)[0]


def raised_errors() -> Iterator[tuple[str, str, str]]:
    """Yield the code, status and message of each error that the source constructs with a literal message or code.

    The message is empty where it is no literal.
    """
    classes = {name: value for name, value in vars(errors).items() if inspect.isclass(value)}
    for tree in trees():
        assignments = [node for node in ast.walk(tree) if isinstance(node, ast.Assign)]
        for node in ast.walk(tree):
            if not (
                isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in classes and node.args
            ):
                continue
            error, message = classes[node.func.id], literal(assigned_value(node.args[0], assignments))
            given = [literal(word.value) for word in node.keywords if word.arg == "code"]
            status, code = status_and_code(error)
            code = given[0] if given else code
            if status and code and (message or given):
                yield code, status, message


def status_and_code(error: type) -> tuple[str, str]:
    """Return the status and the default code of a class of errors; empty where it never reaches a client."""
    for base in error.__mro__:
        if base in KINDS:
            return str(KINDS[base].status), getattr(error, "code", "")
        if base.__name__ in OTHER_ERRORS:
            return OTHER_ERRORS[base.__name__]
    return "", ""


# Metrics


def metrics_page() -> str:
    """Return the page of the metrics of all processes."""
    return page(
        "Metrics",
        "What `/metrics` of web processes, workers and schedulers has, each what it counts or reads, with the\n"
        "`process_*` metrics of the Prometheus client. [Observe](../guides/observe.md#metrics) says where to scrape\n"
        "them and which to look at first.",
        table(["Name", "Type", "Labels", "Meaning"], sorted(map(metric_row, all_metrics()))),
    )


def all_metrics() -> Iterator[ScrapedMetric | MetricWrapperBase]:
    """Yield the metrics that `models.platform.metrics` defines."""
    for value in vars(metrics).values():
        if isinstance(value, ScrapedMetric | MetricWrapperBase):
            yield value


def metric_row(metric: ScrapedMetric | MetricWrapperBase) -> tuple[str, str, str, str]:
    """Return the table row of a metric."""
    if isinstance(metric, ScrapedMetric):
        return f"`{metric.name}`", metric.type, label_list(metric.labels), metric.text
    type_ = metric._type or ""
    suffix = "_total" if type_ == "counter" else ""
    return f"`{metric._name}{suffix}`", type_, label_list(metric._labelnames), metric._documentation


def label_list(labels: Iterable[str]) -> str:
    """Return the names of labels as code."""
    return ", ".join(f"`{label}`" for label in labels)


if __name__ == "__main__":
    sys.exit(main())
