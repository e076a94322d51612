"""An OIDC provider as a process of its own: `python oidc_provider.py` prints its port.

The provider is the package oidc-provider-mock. It lacks PKCE, which the WSGI middleware here adds and requires.
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

# The package uses a deprecated module of Authlib.
warnings.simplefilter("ignore")
from oidc_provider_mock import app  # noqa: E402

StartResponse = Callable[..., Any]


class Pkce:
    """WSGI middleware that checks PKCE (RFC 7636, S256) in front of a provider."""

    def __init__(self, provider: Any) -> None:
        self.provider = provider
        self.challenges: dict[str, str] = {}

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """Handle one request."""
        if environ["PATH_INFO"].endswith("/authorize"):
            return self.provider(environ, self._record_challenge(environ, start_response))
        if environ["PATH_INFO"].endswith("/token") and not self._verifier_matches(environ):
            start_response("400 Bad Request", [("content-type", "application/json")])
            return [json.dumps({"error": "invalid_grant"}).encode()]
        return self.provider(environ, start_response)

    def _record_challenge(self, environ: dict[str, Any], start_response: StartResponse) -> StartResponse:
        query = parse_qs(environ["QUERY_STRING"])

        def record_challenge(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            location = {name.lower(): value for name, value in headers}.get("location", "")
            for code in parse_qs(urlsplit(location).query).get("code", []):
                if query.get("code_challenge_method") == ["S256"]:
                    self.challenges[code] = query["code_challenge"][0]
            return start_response(status, headers, *rest)

        return record_challenge

    def _verifier_matches(self, environ: dict[str, Any]) -> bool:
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = io.BytesIO(body)
        form = parse_qs(body.decode())
        verifier = form.get("code_verifier", [""])[0]
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")
        return self.challenges.pop(form.get("code", [""])[0], None) == challenge


class Forger:
    """WSGI middleware that replaces ID tokens for the clients `none`, `hmac` and `altered` by forged ones."""

    def __init__(self, provider: Any) -> None:
        self.provider = provider

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """Handle one request."""
        if not environ["PATH_INFO"].endswith("/token"):
            return self.provider(environ, start_response)
        client, _, secret = base64.b64decode(environ.get("HTTP_AUTHORIZATION", "").partition(" ")[2]).partition(b":")
        if client not in (b"none", b"hmac", b"altered"):
            return self.provider(environ, start_response)
        captured: list[Any] = []
        answer = json.loads(b"".join(self.provider(environ, lambda *arguments: captured.append(arguments))))
        if "id_token" in answer:
            answer["id_token"] = forge_id_token(answer["id_token"], client.decode(), secret)
        body = json.dumps(answer).encode()
        start_response(captured[0][0], [("content-type", "application/json"), ("content-length", str(len(body)))])
        return [body]


def forge_id_token(token: str, forgery: str, secret: bytes) -> str:
    """Return the ID token with altered claims, without a signature, or signed with the client's secret."""
    header, claims, signature = token.split(".")
    if forgery == "altered":
        payload = json.loads(base64.urlsafe_b64decode(claims + "=="))
        return f"{header}.{encode_part({**payload, 'email': 'victim@example.com'})}.{signature}"
    if forgery == "none":
        return f"{encode_part({'alg': 'none'})}.{claims}."
    signed = f"{encode_part({'alg': 'HS256'})}.{claims}"
    mac = hmac.digest(secret, signed.encode(), "sha256")
    return f"{signed}.{base64.urlsafe_b64encode(mac).decode().rstrip('=')}"


def encode_part(value: dict[str, Any]) -> str:
    """Encode one part of a JWT."""
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


if __name__ == "__main__":
    server = make_server("127.0.0.1", 0, Forger(Pkce(app())), threaded=True)
    print(server.server_port, flush=True)
    server.serve_forever()
