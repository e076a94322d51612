"""The version of Sangha."""

import configparser
import importlib.metadata
from pathlib import Path


def version() -> str:
    """Return the version of the installed package, or of the checkout that this runs from."""
    try:
        return importlib.metadata.version("sangha")
    except importlib.metadata.PackageNotFoundError:
        metadata = configparser.ConfigParser()
        metadata.read(Path(__file__).parent.parent / "setup.cfg")
        return metadata.get("metadata", "version", fallback="unknown")
