"""HTTP with manners: timeouts, bounded answers, retries with backoff and jitter, and one clear error at the end."""

import email.message
import email.utils
import http.client
import random
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from src.errors import StrataError

# what may pass: the server is busy, restarting, or asks for patience
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
_MOST_BYTES = 64 * 2**20

Result = TypeVar("Result")


@dataclass(frozen=True)
class Patience:
    """How long a server is waited for.

    attempts: of one request, at most. timeout: seconds for connecting and for each read. first_wait: seconds before the
    second attempt; each later wait is twice as long, up to longest_wait, and a random part of it is left out.
    """

    attempts: int = 5
    timeout: float = 30.0
    first_wait: float = 1.0
    longest_wait: float = 60.0


class WebError(StrataError):
    """A request that failed for good. status: of the server's answer, if there was one; text: what it said."""

    def __init__(self, message: str, status: int | None = None, text: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.text = text


class PassingError(Exception):
    """What went wrong may go right next time. wait: seconds that the server asked for."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A key must not follow a redirect to another host."""

    def redirect_request(self, *_args: object) -> None:
        return None


_FOLLOWING = urllib.request.build_opener()
_STAYING = urllib.request.build_opener(_NoRedirects)


def open_url(
    request: urllib.request.Request, patience: Patience, *, follow_redirects: bool = True
) -> http.client.HTTPResponse:
    """One attempt. Raises PassingError for what may pass, WebError for what will not."""
    opener = _FOLLOWING if follow_redirects else _STAYING
    try:
        return opener.open(request, timeout=patience.timeout)
    except urllib.error.HTTPError as error:
        with error:
            text = _read_quietly(error)
        if error.code in _PASSING:
            raise PassingError(f"HTTP {error.code} {error.reason}", _retry_after(error.headers)) from None
        raise WebError(f"HTTP {error.code} {error.reason}", error.code, text) from None
    except urllib.error.URLError as error:
        reason = error.reason if isinstance(error.reason, BaseException) else error
        if isinstance(reason, OSError) and "CERTIFICATE" in str(reason).upper():
            raise WebError(f"its certificate is not trusted ({reason})") from None
        raise PassingError(_in_words(reason)) from None
    except (OSError, http.client.HTTPException) as error:
        raise PassingError(_in_words(error)) from None


def fetch(
    request: urllib.request.Request,
    patience: Patience,
    *,
    most_bytes: int = _MOST_BYTES,
    follow_redirects: bool = True,
    sleep: Callable[[float], None] = time.sleep,
) -> bytes:
    """The whole answer to a request. Raises WebError when all attempts have failed, or the answer is too large."""

    def attempt() -> bytes:
        with open_url(request, patience, follow_redirects=follow_redirects) as response:
            content = reading(lambda: response.read(most_bytes + 1))
        if len(content) > most_bytes:
            raise WebError(f"the answer has more than {most_bytes:,} bytes")
        return content

    return persistently(attempt, request.full_url, patience, sleep)


def reading(read: Callable[[], bytes]) -> bytes:
    """Read from a response. Raises PassingError for a connection that breaks off."""
    try:
        return read()
    except (OSError, http.client.HTTPException) as error:
        raise PassingError(_in_words(error)) from None


def persistently(
    attempt: Callable[[], Result], what: str, patience: Patience, sleep: Callable[[float], None] = time.sleep
) -> Result:
    """Try until an attempt succeeds, with exponential backoff and jitter, or as long as a server asks for.

    Raises WebError after the last attempt, or at once where a server asks for more than patience.longest_wait; those
    that an attempt raises itself are given the address.
    """
    for number in range(1, patience.attempts + 1):
        try:
            return attempt()
        except WebError as error:
            raise WebError(f"{what}: {error}", error.status, error.text) from None
        except PassingError as error:
            if number == patience.attempts:
                attempts = f"{number} attempts" if number > 1 else "one attempt"
                raise WebError(f"{what}: {error} ({attempts})") from None
            if error.wait is not None and error.wait > patience.longest_wait:
                raise WebError(f"{what}: {error}; the server asks to come back in {error.wait:,.0f} seconds") from None
            backoff = min(patience.first_wait * 2 ** (number - 1), patience.longest_wait)
            # equal jitter: clients that failed together do not come back together
            sleep(error.wait if error.wait is not None else backoff * random.uniform(0.5, 1))
    raise AssertionError("patience.attempts is at least 1")


def _retry_after(headers: email.message.Message) -> float | None:
    """Seconds that the header Retry-After tells: a number, or a date."""
    value = headers.get("Retry-After", "").strip()
    if value.isdecimal():
        return float(value)
    try:
        return max(email.utils.parsedate_to_datetime(value).timestamp() - time.time(), 0.0)
    except ValueError:
        return None


def _in_words(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, socket.gaierror):
        return f"the host's name can't be resolved ({error.strerror}): is there a network?"
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _read_quietly(error: urllib.error.HTTPError) -> str:
    try:
        return error.read(2000).decode("utf-8", "replace")
    except (OSError, http.client.HTTPException):
        return ""
