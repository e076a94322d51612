"""The URLs by which clients reach this server."""

from starlette.datastructures import Headers

from models.platform.settings import Settings

#: Where the metadata of a protected resource is found: before the path of the resource (RFC 9728, 3.1).
METADATA_PATH = "/.well-known/oauth-protected-resource"


def base_url(settings: Settings, headers: Headers) -> str:
    """Return the public URL, or without that setting the one that the client has used. It has no final slash."""
    return settings.public_address if settings.public_url else f"{settings.scheme}://{headers.get('host', '')}"


def metadata_url(settings: Settings, headers: Headers, path: str) -> str:
    """Return the URL of the metadata of the resource with this path."""
    return f"{base_url(settings, headers)}{METADATA_PATH}{path}"
