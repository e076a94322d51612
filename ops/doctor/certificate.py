"""Check of the web process's TLS certificate."""

from datetime import UTC, datetime, timedelta

from models.platform.settings import Settings
from ops.doctor.finding import Finding

#: A certificate should be renewed before so little time is left. ACME clients renew at a third of its time, which is
#: 30 days of 90.
SOON = timedelta(days=14)

NAME = "certificate"


def certificate(settings: Settings) -> Finding:
    """Check that the certificate can be used, and for how long. Raises ConfigurationError."""
    from web.http.tls import certificate_files, expiry, load_context

    files = certificate_files(settings)
    if files is None:
        return Finding("ok", NAME, "none: the web process speaks plain HTTP")
    load_context(files)
    end = expiry(files)
    left = end - datetime.now(UTC)
    detail = f"{files.cert} expires on {end:%Y-%m-%d}, in {left.days} days"
    return Finding("warn", NAME, detail, "renew it") if left < SOON else Finding("ok", NAME, detail)
