"""An OIDC provider as a process of its own: `python oidc_provider.py` prints its port. It insists on PKCE's verifier.

The provider is the package oidc-provider-mock. It does all of OpenID Connect but PKCE, which stands before it here.
"""

import base64
import hashlib
import hmac
import io
import json
import warnings
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import parse_qs, urlsplit

from werkzeug.serving import make_server

# It uses a module of Authlib that has a successor.
warnings.simplefilter("ignore")
from oidc_provider_mock import app  # noqa: E402

Answer = Callable[..., Any]


class Pkce:
    """RFC 7636 with S256, before a provider that has codes."""

    def __init__(self, provider: Any) -> None:
        self.provider = provider
        self.challenges: dict[str, str] = {}

    def __call__(self, environ: dict[str, Any], start: Answer) -> Iterable[bytes]:
        """One request."""
        if environ["PATH_INFO"].endswith("/authorize"):
            return self.provider(environ, self._noting(environ, start))
        if environ["PATH_INFO"].endswith("/token") and not self._proved(environ):
            start("400 Bad Request", [("content-type", "application/json")])
            return [json.dumps({"error": "invalid_grant"}).encode()]
        return self.provider(environ, start)

    def _noting(self, environ: dict[str, Any], start: Answer) -> Answer:
        query = parse_qs(environ["QUERY_STRING"])

        def noting(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            there = {name.lower(): value for name, value in headers}.get("location", "")
            for code in parse_qs(urlsplit(there).query).get("code", []):
                if query.get("code_challenge_method") == ["S256"]:
                    self.challenges[code] = query["code_challenge"][0]
            return start(status, headers, *rest)

        return noting

    def _proved(self, environ: dict[str, Any]) -> bool:
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = io.BytesIO(body)
        form = parse_qs(body.decode())
        verifier = form.get("code_verifier", [""])[0]
        made = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")
        return self.challenges.pop(form.get("code", [""])[0], None) == made


class Forger:
    """For the clients `none`, `hmac` and `altered`: ID tokens that the provider never signed."""

    def __init__(self, provider: Any) -> None:
        self.provider = provider

    def __call__(self, environ: dict[str, Any], start: Answer) -> Iterable[bytes]:
        """One request."""
        if not environ["PATH_INFO"].endswith("/token"):
            return self.provider(environ, start)
        client, _, secret = base64.b64decode(environ.get("HTTP_AUTHORIZATION", "").partition(" ")[2]).partition(b":")
        if client not in (b"none", b"hmac", b"altered"):
            return self.provider(environ, start)
        told: list[Any] = []
        answer = json.loads(b"".join(self.provider(environ, lambda *given: told.append(given))))
        if "id_token" in answer:
            answer["id_token"] = forged(answer["id_token"], client.decode(), secret)
        body = json.dumps(answer).encode()
        start(told[0][0], [("content-type", "application/json"), ("content-length", str(len(body)))])
        return [body]


def forged(token: str, how: str, secret: bytes) -> str:
    """The same claims without a signature or with one by the client's secret, or other claims."""
    header, claims, signature = token.split(".")
    if how == "altered":
        told = json.loads(base64.urlsafe_b64decode(claims + "=="))
        return f"{header}.{part({**told, 'email': 'victim@example.com'})}.{signature}"
    if how == "none":
        return f"{part({'alg': 'none'})}.{claims}."
    signed = f"{part({'alg': 'HS256'})}.{claims}"
    made = hmac.digest(secret, signed.encode(), "sha256")
    return f"{signed}.{base64.urlsafe_b64encode(made).decode().rstrip('=')}"


def part(value: dict[str, Any]) -> str:
    """A part of a JWT."""
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


if __name__ == "__main__":
    server = make_server("127.0.0.1", 0, Forger(Pkce(app())), threaded=True)
    print(server.server_port, flush=True)
    server.serve_forever()
