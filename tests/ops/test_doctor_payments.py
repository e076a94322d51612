"""The doctor warns where customers would not pay."""

import pytest

from models.platform.settings import Settings
from ops.doctor.finding import run_check
from ops.doctor.payments import payments
from ops.doctor.report import CHECKS

TEST, LIVE, SECRET = "sk_test_12345678", "rk_live_12345678", "whsec_12345678"
PUBLIC = {"public_url": "https://ai.example.com"}


def stripe(key: str = LIVE, secret: str = SECRET, **changes: object) -> dict[str, object]:
    return {"gateway": "stripe", "stripe_secret_key": key, "stripe_webhook_secret": secret, **changes}


@pytest.mark.parametrize(
    ("changes", "verdict", "text"),
    [({}, "ok", "simulated"), ({"host": "::1"}, "ok", "simulated"), ({"host": "localhost"}, "ok", "simulated"),
     ({"host": "0.0.0.0"}, "warn", "without paying"), ({"host": "10.0.0.5"}, "warn", "without paying"),
     (PUBLIC, "warn", "set SANGHA_GATEWAY"), ({"public_url": "http://localhost:8000"}, "ok", "simulated"),
     ({"gateway": "manual", "host": "0.0.0.0"}, "ok", "bank transfer"),
     (stripe(**PUBLIC), "ok", "live mode"), (stripe(), "warn", "set SANGHA_PUBLIC_URL"),
     (stripe(TEST), "ok", "test mode"), (stripe(TEST, **PUBLIC), "warn", "without paying"),
     (stripe("pk_live_12345678", **PUBLIC), "FAIL", "STRIPE_SECRET_KEY"),
     (stripe(LIVE, "we_12345678", **PUBLIC), "FAIL", "STRIPE_WEBHOOK_SECRET"),
     (stripe(LIVE, stripe_api_base="http://127.0.0.1:9", **PUBLIC), "FAIL", "STRIPE_API_BASE")],
)  # fmt: skip
def test_payments_of_public_installations_are_checked(
    settings: Settings, changes: dict[str, object], verdict: str, text: str
) -> None:
    plain = {"host": "127.0.0.1", "public_url": None, "gateway": "test"}

    finding = run_check(payments, settings.model_copy(update=plain | changes))

    assert (finding.verdict, text in str(finding)) == (verdict, True)
    assert all(str(secret) not in str(finding) for secret in (TEST, LIVE, SECRET))


def test_payments_are_one_of_the_checks() -> None:
    assert payments in CHECKS
