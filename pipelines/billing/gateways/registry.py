"""The gateways that the settings allow."""

import hmac

from models.billing.payments import GatewayName
from models.platform.database import Database
from models.platform.errors import Conflict
from models.platform.secrets import load_secret_key
from models.platform.settings import Settings
from pipelines.billing.gateways.gateway import Gateway
from pipelines.billing.gateways.manual import ManualGateway
from pipelines.billing.gateways.simulator import Simulator


class Gateways:
    """The gateways of an installation. Payments of an earlier gateway can be refunded while its settings are there."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self.default: GatewayName = settings.gateway
        self._open: dict[GatewayName, Gateway] = {"manual": ManualGateway()}
        if settings.gateway == "test":
            self._open["test"] = open_simulator(settings, database)
        if settings.stripe_secret_key is not None:
            from pipelines.billing.gateways.stripe import StripeGateway  # 15 MB, for those who use it

            self._open["stripe"] = StripeGateway(settings)

    def with_books(self) -> list[Gateway]:
        """Return the gateways that have books of their own."""
        return [gateway for name, gateway in self._open.items() if name != "manual"]

    def get(self, name: str) -> Gateway:
        """Return a gateway. Raises Conflict if the settings lack it."""
        for known, gateway in self._open.items():
            if known == name:
                return gateway
        raise Conflict(f"The gateway '{name}' is not configured on this server.", code="gateway_not_configured")


def open_simulator(settings: Settings, database: Database) -> Simulator:
    """Return the simulated gateway. Its secret is derived from the installation's key."""
    secret = hmac.digest(load_secret_key(settings), b"sangha simulated gateway", "sha256").hex()
    return Simulator(database, secret, settings.public_address)
