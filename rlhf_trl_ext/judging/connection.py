"""The `openai` package's client for one endpoint, over aiohttp: OpenAI's, a compatible server's, or Azure's."""

import logging
import os
import zlib
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httpx2
from openai import AsyncAzureOpenAI, AsyncOpenAI, DefaultAioHttpClient

if TYPE_CHECKING:
    from rlhf_trl_ext.judging.client import Client


OPENAI = "https://api.openai.com/v1"
AZURE_API_VERSION = "2024-10-21"
LONGEST = 2**23  # bytes of an answer


class TooLong(httpx2.TransportError):
    """An answer of more than `LONGEST` bytes, or in an encoding that hides how long it is."""


class Bounded(httpx2.AsyncByteStream):
    """The bytes of an answer, unzipped here, up to `LONGEST` of them."""

    def __init__(self, stream: httpx2.AsyncByteStream, zipped: bool):
        self.stream, self.unzip = stream, zlib.decompressobj(47) if zipped else None

    async def __aiter__(self):
        size = 0
        async for chunk in self.stream:
            if self.unzip is not None:
                chunk = self.unzip.decompress(chunk, LONGEST + 1)
            size += len(chunk)
            if size > LONGEST:
                raise TooLong(f"an answer of more than {LONGEST:,} bytes")
            yield chunk

    async def aclose(self) -> None:
        await self.stream.aclose()


async def bound(response: httpx2.Response) -> None:
    """Limit what is read of a response, whatever its headers say."""
    encoding = response.headers.pop("content-encoding", "identity").lower()
    if encoding not in ("identity", "gzip", "deflate"):
        raise TooLong(f"an answer in the encoding {encoding[:20]}, which was not asked for")
    response.stream = Bounded(response.stream, encoding != "identity")


def is_azure(client: "Client") -> bool:
    """Whether an address is Azure's own API (deployments, api-version, api-key); its /openai/v1 is OpenAI's."""
    parts = urlsplit(client.base_url or "")
    if parts.path.endswith("/openai/v1"):
        return False
    host = parts.hostname or ""
    return bool(client.api_version) or "AZURE" in (client.key_variable or "") or host.endswith(".openai.azure.com")


def connect(client: "Client", key: str) -> AsyncOpenAI:
    """A connection without retries of its own: every attempt needs room in the budget."""
    logging.getLogger("httpx2").setLevel(logging.WARNING)  # it tells of every request
    http = DefaultAioHttpClient(
        limits=httpx2.Limits(max_connections=0),  # as many as there are questions at once
        follow_redirects=False,
        event_hooks={"response": [bound]},
    )
    settings = {"api_key": key, "timeout": client.timeout, "max_retries": 0, "http_client": http}
    settings["default_headers"] = {"Accept-Encoding": "identity"}
    url = client.base_url or OPENAI
    if not is_azure(client):
        return AsyncOpenAI(base_url=url, **settings)
    version = client.api_version or os.environ.get("OPENAI_API_VERSION") or AZURE_API_VERSION
    place = "base_url" if urlsplit(url).path.strip("/") else "azure_endpoint"
    return AsyncAzureOpenAI(api_version=version, **{place: url}, **settings)
