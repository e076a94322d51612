"""Start a llama.cpp server in this process, for the engine or the embedder."""

import secrets
from pathlib import Path
from typing import Any

import xllamacpp

from models.platform.errors import ConfigurationError
from models.platform.settings import variable_name
from pipelines.inference.llamacpp.socket_folder import new_socket_path


def server_parameters(path: Path, threads: int) -> Any:
    """Return parameters for a model file: no log output, and this number of computing threads.

    The server always listens somewhere: here at a socket that only this user can open, with a random API key.
    """
    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.hostnames = [str(new_socket_path())]
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
        reasons = "it is damaged, of an unknown kind, or too large for this machine"
        raise ConfigurationError(
            f"{variable_name(field)}: llama.cpp cannot load {params.model.path}: {reasons}"
        ) from None
