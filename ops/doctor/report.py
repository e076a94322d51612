"""All checks, in the order in which they are printed."""

from collections.abc import Callable, Sequence

from models.platform.settings import Settings
from ops.doctor.certificate import certificate
from ops.doctor.engines import embedding_model, endpoint_checks, engine
from ops.doctor.finding import Check, run_check
from ops.doctor.installation import data_folder, open_files, packages, secret_key
from ops.doctor.object_store import object_store
from ops.doctor.payments import payments
from ops.doctor.processes import web, workers
from ops.doctor.redis_durability import redis_durability
from ops.doctor.servers import broker, mail_server, pooler, postgres, redis_server

CHECKS: Sequence[Check] = (
    packages,
    data_folder,
    postgres,
    pooler,
    redis_server,
    redis_durability,
    broker,
    engine,
    embedding_model,
    object_store,
    mail_server,
    payments,
    secret_key,
    certificate,
    web,
    workers,
    open_files,
)


def print_report(settings: Settings, print_line: Callable[[str], None], checks: Sequence[Check] = CHECKS) -> bool:
    """Run every check and print its finding. Returns whether none failed."""
    healthy = True
    for check in [*checks, *(endpoint_checks(settings) if checks is CHECKS else ())]:
        finding = run_check(check, settings)
        print_line(str(finding))
        healthy = healthy and finding.verdict != "FAIL"
    return healthy


def print_model_report(settings: Settings, print_line: Callable[[str], None]) -> bool:
    """Check the model of the settings up to the first failure: one that does not fit is not loaded."""
    from ops.doctor.model import ModelChecks

    engine = settings.engine if settings.engine == "ctransformers" else "llamacpp"
    settings = settings.model_copy(update={"engine": engine})
    return all(print_report(settings, print_line, [check]) for check in ModelChecks(settings).checks)
