"""Print a pip.conf for a build: this machine's index, and the build's own path of the certificate authorities."""

import subprocess
import sys

#: What a build needs to reach packages. Paths of this machine do not exist there.
KEPT = ("index-url", "extra-index-url", "timeout", "default-timeout", "trusted-host")


def pip_settings() -> dict[str, str]:
    """Return pip's settings from its files and variables."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    pairs = (line.partition("=") for line in lines)
    return {name.rpartition(".")[2]: value.strip("'\"") for name, _, value in pairs}


def main() -> None:
    """Print the file."""
    kept = {name: value for name, value in pip_settings().items() if name in KEPT and not value.startswith("file:")}
    print("\n".join(["[global]", "cert = /run/ca.pem", *(f"{name} = {value}" for name, value in kept.items())]))


if __name__ == "__main__":
    main()
