"""Another endpoint that serves the same model, for turns of an endpoint that fails."""

from models.jobs.windows import RECENT
from models.platform.database import Connection, fetch_one

# Served by a live worker, with a breaker that lets requests through. An endpoint in the operator's network is replaced
# by such ones only.
OTHER = """
SELECT other.model_endpoint AS endpoint
FROM served_models AS other
JOIN served_models AS this ON this.model_name = other.model_name AND this.model_endpoint = %(endpoint)s
LEFT JOIN circuit_breakers ON upstream = other.model_endpoint
WHERE other.model_name = %(model)s AND other.model_endpoint NOT IN ('', %(endpoint)s)
  AND coalesce(forced_state, breaker_state, 'closed') = 'closed' AND coalesce(saturated_until <= now(), true)
  AND (coalesce((other.description ->> 'is_local')::bool, false)
       OR NOT coalesce((this.description ->> 'is_local')::bool, false))
  AND EXISTS (SELECT FROM workers CROSS JOIN LATERAL jsonb_array_elements(served) AS entry
              WHERE pid > 0 AND seen_at > now() - make_interval(secs => %(recent)s)
                AND entry ->> 'model' = other.model_name AND entry ->> 'endpoint' = other.model_endpoint)
ORDER BY random() LIMIT 1
"""


def other_endpoint(connection: Connection, endpoint: str, model: str) -> str | None:
    """Return another endpoint that may be asked for the model now; None if there is none."""
    row = fetch_one(connection, OTHER, {"endpoint": endpoint, "model": model, "recent": RECENT})
    return str(row["endpoint"]) if row else None
