"""The route table: every address of the HTTP door, what answers it, and who may use it."""

from web import accounts, health, models
from web.routing import Rights, Row

ROUTES = (
    Row("POST", "/signup", accounts.signup, Rights.PUBLIC),
    Row("POST", "/login", accounts.login, Rights.PUBLIC),
    Row("GET", "/.well-known/jwks.json", accounts.jwks, Rights.PUBLIC),
    Row("GET", "/v1/models", models.list_models, Rights.MEMBER),
    Row("GET", "/v1/models/{model:path}", models.get_model, Rights.MEMBER),
    Row("GET", "/healthz", health.healthz, Rights.PUBLIC),
    Row("GET", "/readyz", health.readyz, Rights.PUBLIC),
    Row("GET", "/metrics", health.metrics, Rights.PUBLIC),
)
