"""How the process fares: liveness, readiness, metrics."""
