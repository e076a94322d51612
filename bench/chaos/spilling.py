"""The endpoint of a run: to which turns spill, with the same script as the engines, and a budget that is reached."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from bench.chaos.processes import ENDPOINT
from bench.chaos.transcripts import RATE, SLOW_RATE, TOKENS
from bench.harness.endpoint.client import ScriptedEndpoint
from bench.harness.stack import Servers
from models.platform.upstreams import Upstream

#: The endpoint's name in the settings, its model, and the answers that it gives at the same time.
NAME, MODEL, SLOTS = "cloud", "cloud-1", 4

#: Seconds that a turn waits before it may spill: some turns of each client do.
SPILL_AFTER = 1.0

#: The most money of a day, and the most of its turns: no run reaches the first, and every run the second.
MONEY, SHARE = Decimal(10), 0.25

#: The price of a million tokens.
PRICE = Decimal("2.5")


def start_endpoint(servers: Servers) -> ScriptedEndpoint:
    """Start the endpoint as a process of the stack."""
    endpoint = ScriptedEndpoint(ENDPOINT)
    servers.start(endpoint)
    endpoint.change(tokens=TOKENS, rate=RATE, slow=SLOW_RATE, nonce=True, limit=SLOTS)
    return endpoint


def endpoint_settings(endpoint: ScriptedEndpoint) -> Mapping[str, Any]:
    """Return the settings of a stack whose turns spill to the endpoint."""
    upstream = Upstream(
        NAME, endpoint.url, (MODEL,), slots=SLOTS, price_input=PRICE, price_output=PRICE, residency="any"
    )
    return {
        "upstreams": (upstream,), "spill_after": SPILL_AFTER, "spill_to": NAME, "spill_money": MONEY,
        "spill_share": SHARE,
    }  # fmt: skip
