"""Exit codes of the `sangha` command."""

#: A server or another process is not reachable: trying again may help.
UNAVAILABLE = 1

#: A setting, an argument or the installation is wrong: the same command fails again.
MISCONFIGURED = 2

#: Ended by Ctrl-C (128 + SIGINT).
INTERRUPTED = 130
