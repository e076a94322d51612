"""Start a llama.cpp server in this process: what the engine and the embedder have in common."""

import secrets
from pathlib import Path
from typing import Any

import xllamacpp

from models.platform.errors import ConfigurationError
from models.platform.settings import variable_name


def server_parameters(path: Path, threads: int) -> Any:
    """llama.cpp's parameters for a model file: silent, and computing with that many threads.

    The server opens a port on loopback that can't be turned off, so it gets a key that nobody knows.
    """
    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.api_keys = [secrets.token_urlsafe(32)]
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    params.ui = False
    params.verbosity = -1
    return params


def start_server(params: Any, field: str) -> Any:
    """Load the model and start its threads; call it after forking.

    Raises ConfigurationError with one line that names the variable of the settings' `field`.
    """
    try:
        return xllamacpp.Server(params)
    except RuntimeError:
        why = "it is damaged, of an unknown kind, or too large for this machine"
        raise ConfigurationError(f"{variable_name(field)}: llama.cpp can't load {params.model.path}: {why}") from None
