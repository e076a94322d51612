"""Check of payments: simulated ones, and Stripe's keys."""

from ipaddress import ip_address
from urllib.parse import urlsplit

from models.platform.settings import Settings
from ops.doctor.finding import Finding

#: What the secret keys of each mode of Stripe begin with.
TEST_KEYS, LIVE_KEYS = ("sk_test_", "rk_test_"), ("sk_live_", "rk_live_")


def payments(settings: Settings) -> Finding:
    """Check that a public installation moves money, and that Stripe's keys fit."""
    if settings.gateway == "stripe":
        return _stripe(settings, settings.stripe_secret_key or "", settings.stripe_webhook_secret or "")
    if settings.gateway == "manual":
        return Finding("ok", "payments", "by bank transfer")
    if is_public(settings):
        detail = "simulated, on a public address: customers get plans and credits without paying"
        return Finding("warn", "payments", detail, "set SANGHA_GATEWAY to stripe or manual")
    return Finding("ok", "payments", "simulated")


def _stripe(settings: Settings, key: str, webhook_secret: str) -> Finding:
    if not key.startswith(TEST_KEYS + LIVE_KEYS):
        return Finding(
            "FAIL", "payments", "STRIPE_SECRET_KEY is no secret or restricted key", "it begins with sk_ or rk_"
        )
    if not webhook_secret.startswith("whsec_"):
        remedy = "copy the signing secret of the webhook endpoint, which begins with whsec_"
        return Finding("FAIL", "payments", "STRIPE_WEBHOOK_SECRET is no signing secret", remedy)
    if settings.stripe_api_base is not None and key.startswith(LIVE_KEYS):
        detail = f"a live key of Stripe is sent to {urlsplit(settings.stripe_api_base).hostname}"
        return Finding("FAIL", "payments", detail, "unset STRIPE_API_BASE")
    if key.startswith(TEST_KEYS) and is_public(settings):
        detail = "Stripe in test mode, on a public address: customers get plans and credits without paying"
        return Finding("warn", "payments", detail, "set STRIPE_SECRET_KEY and STRIPE_WEBHOOK_SECRET of the live mode")
    if key.startswith(LIVE_KEYS) and not is_public(settings):
        detail = "Stripe in live mode, without a public address: its events cannot arrive"
        return Finding("warn", "payments", detail, "set SANGHA_PUBLIC_URL")
    return Finding("ok", "payments", f"Stripe in {'test' if key.startswith(TEST_KEYS) else 'live'} mode")


def is_public(settings: Settings) -> bool:
    """Return whether others than this machine can reach the server, by its settings."""
    hosts = [settings.host, urlsplit(settings.public_address).hostname or ""]
    return not all(_is_loopback(host) for host in hosts)


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
