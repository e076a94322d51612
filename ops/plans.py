"""`sangha plans`: list plans and change them."""

import click

from models.accounts import audit
from models.accounts.audit import RequestOrigin
from models.billing import plan_versions
from models.billing.currencies import format_amount
from models.billing.plan_versions import PlanVersion
from models.jobs.jobs import PLATFORM_ACCOUNT
from models.platform.errors import ConfigurationError, RequestError
from models.platform.settings import Settings
from ops.database_connection import transaction
from ops.table import align_columns
from web.api.billing.plans import PutPlan, check_plan_id, plan_terms
from web.http import bodies

HEADINGS = ("plan", "version", "name", "fee", "currency", "period", "trial days", "public", "since")


def list_plans(settings: Settings, versions: str | None) -> None:
    """Print one line per plan, or per version of one. Raises ConfigurationError for an unknown plan."""
    with transaction(settings) as connection:
        if versions is None:
            rows = plan_versions.list_newest(connection)
        else:
            rows = plan_versions.list_versions(connection, versions)
    if not rows:
        raise ConfigurationError(f"there is no plan '{versions}'")
    _print(rows)


def put_plan(settings: Settings, plan_id: str, body: bytes) -> None:
    """Create a plan, or a new version of it. Raises ConfigurationError for an invalid body."""
    try:
        parsed = bodies.parse(body, PutPlan)
        with transaction(settings) as connection:
            version = plan_versions.put(connection, check_plan_id(plan_id), plan_terms(connection, parsed))
            details = {"version": version.version, "limits": dict(version.limits)}
            audit.record(
                connection,
                "plan.changed",
                RequestOrigin(),
                account_id=PLATFORM_ACCOUNT,
                target=plan_id,
                details=details,
            )
    except RequestError as error:
        raise ConfigurationError(error.message) from None
    _print([version])


def _print(rows: list[PlanVersion]) -> None:
    click.echo("\n".join(align_columns([HEADINGS, *map(_row, rows)], right={1, 3, 6})))


def _row(plan: PlanVersion) -> list[object]:
    return [
        plan.plan_id,
        plan.version,
        plan.name,
        format_amount(plan.fee, plan.currency),
        plan.currency,
        plan.period,
        plan.trial_days,
        "yes" if plan.public else "no",
        f"{plan.created_at:%Y-%m-%d %H:%M}",
    ]
