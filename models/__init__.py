"""What the platform knows: records with their SQL, and settings."""

import sys

# redis-py imports OpenTelemetry's SDK of metrics wherever it is installed, and uses nothing of it without being asked.
# The import takes 60 ms of each process. This entry makes it fail, which redis-py expects; traces need other parts.
sys.modules.setdefault("opentelemetry.sdk.metrics", None)  # type: ignore[arg-type]
