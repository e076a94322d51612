"""Checks of the installation on this machine: packages, data folder, secret key, open files."""

import resource
import shutil
from importlib.metadata import PackageNotFoundError, requires
from importlib.util import find_spec

from models.platform.settings import Settings
from ops.doctor.finding import RUN_UP, Finding
from ops.preflight import MIN_FREE_DISK

#: Each event stream is an open connection: a lower limit on open files bounds the number of clients.
MIN_OPEN_FILES = 8192

#: Distributions whose module has another name.
MODULE_NAMES = {"argon2-cffi": "argon2", "email-validator": "email_validator", "yoyo-migrations": "yoyo"}


def packages(settings: Settings) -> Finding:
    """Check that every package that setup.cfg requires can be imported."""
    try:
        required = [line for line in requires("sangha") or [] if "extra ==" not in line]
    except PackageNotFoundError:
        return Finding("warn", "packages", "Sangha itself is not installed", "run `make install`")
    missing = [name for name in map(distribution_name, required) if find_spec(module_name(name)) is None]
    if missing:
        return Finding("FAIL", "packages", f"missing: {', '.join(missing)}", "run `make install`")
    return Finding("ok", "packages", f"{len(required)} installed")


def data_folder(settings: Settings) -> Finding:
    """Check that the data folder exists and its disk has free space."""
    home = settings.home
    if not home.exists():
        return Finding("warn", "data folder", f"{home} does not exist yet", RUN_UP)
    free = shutil.disk_usage(home).free
    if free < MIN_FREE_DISK:
        needed = f"{home} has {free // 1_000_000} MB free, {MIN_FREE_DISK // 1_000_000} MB are needed"
        return Finding("FAIL", "data folder", needed, "free some disk space")
    return Finding("ok", "data folder", f"{home}, {free // 1_000_000_000} GB free")


def secret_key(settings: Settings) -> Finding:
    """Check that there is a secret key that only its owner can read."""
    if settings.secret_key:
        return Finding("ok", "secret key", "SANGHA_SECRET_KEY is set")
    file = settings.home / "secret_key"
    if not file.exists():
        return Finding("warn", "secret key", f"{file} does not exist yet; it is created on first use", RUN_UP)
    if file.stat().st_mode & 0o077:
        return Finding("FAIL", "secret key", f"{file} is readable by other users", f"chmod 600 {file}")
    return Finding("ok", "secret key", str(file))


def open_files(settings: Settings) -> Finding:
    """Check that the limit on open files allows many event streams."""
    _, hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard_limit == resource.RLIM_INFINITY:
        return Finding("ok", "open files", "no limit")
    if hard_limit < MIN_OPEN_FILES:
        return Finding("warn", "open files", f"limited to {hard_limit}", f"ulimit -n {MIN_OPEN_FILES}")
    return Finding("ok", "open files", f"limited to {hard_limit}")


def distribution_name(requirement: str) -> str:
    """`redis<9,>=6` → `redis`."""
    return requirement.split(";")[0].split("[")[0].split("<")[0].split(">")[0].split("~")[0].split("=")[0].strip()


def module_name(distribution: str) -> str:
    """Return the module by which a distribution is imported."""
    return MODULE_NAMES.get(distribution, distribution.replace("-", "_"))
