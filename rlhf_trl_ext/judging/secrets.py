"""Keys come from the environment and go nowhere but into the request."""

import os
import re
from urllib.parse import urlsplit


def find_key(variable: str | None) -> str:
    """The key in an environment variable; a placeholder where variable is None.

    Raises ValueError, which never holds the key, when the variable is empty or its value cannot be a key.
    """
    if variable is None:
        return "none"
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,63}", variable) or variable.startswith("sk_"):
        raise ValueError("key_variable is no name of an environment variable: put the key there and give its name.")
    key = os.environ.get(variable, "").strip()
    if not key:
        raise ValueError(f"key_variable={variable}: the environment has no such key; export {variable}=<key>.")
    if not re.fullmatch(r"[!-~]+", key):
        raise ValueError(f"key_variable={variable}: its value holds spaces or characters that no key has.")
    return key


def checked_url(url: str | None) -> str | None:
    """The address itself. Raises ValueError, without the address, when it holds a password or a query."""
    if url is None:
        return None
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("base_url is no address: give one like http://localhost:8000/v1.")
    if parts.username or parts.password or parts.query:
        raise ValueError("base_url holds a user, password or query: put the key into an environment variable instead.")
    return url.rstrip("/")


def scrub(text: str, secret: str) -> str:
    """Text without the key, and without its parts as endpoints repeat them (first or last characters)."""
    if secret == "none":
        return text
    for part in (secret, secret[:12], secret[-8:]):
        if len(part) >= 8:
            text = text.replace(part, "***")
    return text
