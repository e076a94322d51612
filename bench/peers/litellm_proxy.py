"""LiteLLM's proxy as a child of the stack: one process, without a database, as its guide begins.

It has one model with a fallback, each at an endpoint of its own, and does not retry, so that one failure of the primary
leads to the fallback at once.
"""

import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import orjson

from bench.harness.client import Address
from bench.harness.endpoint.client import ScriptedEndpoint
from bench.harness.stack import Stack
from bench.peers.process import HOST, PeerProcess
from ops.rabbitmq import free_ports

#: The names of the model and of its fallback.
MODEL, FALLBACK = "assistant", "spare"


class LiteLLM(PeerProcess):
    """The proxy. `key` is what its clients authenticate with."""

    name = "peer-litellm"

    def __init__(self, python: Path, configuration: Path) -> None:
        self.port = free_ports(1)[0]
        self.key = f"sk-{secrets.token_hex(32)}"
        self._program = python.parent / "litellm"
        self._configuration = configuration

    @property
    def address(self) -> Address:
        """Where it listens."""
        return HOST, self.port

    def command(self) -> list[str]:
        """Return the command."""
        options = ["--config", str(self._configuration), "--host", HOST, "--port", str(self.port)]
        return [str(self._program), *options]

    def environment(self) -> Mapping[str, str]:
        """Return its settings, by their documented names. It downloads no list of prices."""
        return {"PYTHONPATH": "", "LITELLM_LOG": "ERROR", "LITELLM_LOCAL_MODEL_COST_MAP": "True",
                "LITELLM_MASTER_KEY": self.key}  # fmt: skip

    def ready(self, pid: int) -> bool:
        """Return whether it says that it is alive."""
        return self.answers("/health/liveliness")


def configuration(primary: ScriptedEndpoint, fallback: ScriptedEndpoint, model: str) -> Mapping[str, object]:
    """Return its configuration. `model` is the name of the model at both endpoints."""
    models = [
        {
            "model_name": name,
            "litellm_params": {"model": f"openai/{model}", "api_base": endpoint.url, "api_key": "none"},
        }
        for name, endpoint in ((MODEL, primary), (FALLBACK, fallback))
    ]
    router = {"fallbacks": [{MODEL: [FALLBACK]}], "num_retries": 0}
    return {"model_list": models, "router_settings": router, "litellm_settings": {"telemetry": False}}


@contextmanager
def litellm(
    stack: Stack, python: Path, primary: ScriptedEndpoint, fallback: ScriptedEndpoint, model: str
) -> Iterator[LiteLLM]:
    """Run the proxy until the end of the block."""
    path = stack.folder / "litellm.yaml"
    path.write_bytes(orjson.dumps(configuration(primary, fallback, model)))  # JSON is YAML
    proxy = LiteLLM(python, path)
    with stack.servers.running([proxy]):
        yield proxy
