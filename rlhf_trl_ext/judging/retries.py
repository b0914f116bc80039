"""What a failed request means, and how long to wait before the next one."""

import email.utils
import random
import time
from contextlib import suppress

from rlhf_trl_ext.judging.connection import RequestFailed

FIRST_BACKOFF, LONGEST_BACKOFF = 0.5, 30.0  # seconds


def billed(error: RequestFailed) -> bool:
    """Whether a failed request may have cost something: not when it was refused or no connection was made."""
    return error.status is None and error.sent


def told(error: RequestFailed) -> str:
    """An error in a few words: the status and the first 200 characters of what the endpoint says."""
    return " ".join(f"{error.status or ''} {error}".split())[:200]


def wait(error: Exception, attempt: int) -> float:
    """Seconds until the next attempt: Retry-After and up to 10 % more, else exponential with full jitter."""
    headers = getattr(error, "headers", {})
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        with suppress(KeyError, ValueError):
            return float(headers[name]) * unit * random.uniform(1.0, 1.1)
    with suppress(KeyError, TypeError, ValueError):
        date = email.utils.parsedate_to_datetime(headers["retry-after"])
        return max(0.0, date.timestamp() - time.time()) + random.uniform(0.0, 1.0)
    return random.uniform(0.0, min(LONGEST_BACKOFF, FIRST_BACKOFF * 2**attempt))
