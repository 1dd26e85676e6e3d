"""What a call has to show before it is read: a key, a body of a sane size."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping
from typing import Annotated, Any, NoReturn

from fastapi import Depends, Query, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from shared.api.job_service import JobService
from shared.api.options import ApiOptions
from shared.api.rate_limit import RateLimit
from shared.api.signed_urls import LONGEST_SIGNATURE, is_signed
from shared.errors import InvalidCall, Unauthorised, reason
from shared.numbers import READ_NUMBER

_bearer = HTTPBearer(auto_error=False, description="one of the server's keys, if it has any")


# What FastAPI calls at each call is asynchronous: it would run anything else in a thread.


async def jobs_of(request: Request) -> JobService:
    return request.app.state.jobs


def options_of(request: Request) -> ApiOptions:
    return request.app.state.options


Credentials = Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]


def owner_of(request: Request, credentials: HTTPAuthorizationCredentials | None) -> str:
    """Whose jobs the caller may see: a digest of the key. Raises `Unauthorised`."""
    options = options_of(request)
    if not options.keys:
        return ""
    given = credentials.credentials.encode() if credentials else b""
    # Every key is compared, each in constant time, so that the time taken tells nothing.
    matches = [hmac.compare_digest(given, key.encode()) for key in options.keys]
    if not any(matches):
        raise Unauthorised(
            "The API key is missing, or is none of this server's.",
            "Send it in the header Authorization: Bearer KEY.",
        )
    return key_digest(given.decode())


def key_digest(key: str) -> str:
    """What stands for a key wherever something is kept for it."""
    return hashlib.sha256(key.encode()).hexdigest()[:16]


async def _owner(request: Request, credentials: Credentials) -> str:
    return owner_of(request, credentials)


async def _limited_owner(request: Request, credentials: Credentials) -> str:
    """The same for a call that asks for pictures. Raises `RateLimited` too."""
    limit: RateLimit = request.app.state.rate_limit
    owner = owner_of(request, credentials)
    limit.take(owner)
    return owner


async def _viewer(
    request: Request,
    image: str,
    credentials: Credentials,
    expires: Annotated[
        int | None, Query(strict=True, description="of a signed address"), READ_NUMBER
    ] = None,
    signature: Annotated[str, Query(max_length=LONGEST_SIGNATURE)] = "",
) -> str | None:
    """Whose image the caller may see: anyone's with its signed address. Raises `Unauthorised`."""
    options = options_of(request)
    if expires is not None and is_signed(
        options.keys, image, expires, signature, options.url_seconds
    ):
        return None
    return owner_of(request, credentials)


async def _lister(request: Request, credentials: Credentials) -> str:
    """The same for a call that lists jobs. Raises `Unauthorised` where strangers share them."""
    owner = owner_of(request, credentials)
    if not options_of(request).is_private:
        raise Unauthorised(
            "This server is open to strangers, so its jobs cannot be listed.",
            "Keep the id that POST gave.",
        )
    return owner


Owner = Annotated[str, Depends(_owner)]
Lister = Annotated[str, Depends(_lister)]
LimitedOwner = Annotated[str, Depends(_limited_owner)]
Viewer = Annotated[str | None, Depends(_viewer)]
Jobs = Annotated[JobService, Depends(jobs_of)]


async def read_json(request: Request) -> dict[str, Any]:
    """The body, a JSON object of at most `max_body` bytes. Raises `InvalidCall`."""
    media_type = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if media_type != "application/json":
        raise InvalidCall(
            f"The body's type is {media_type[:60] or 'not given'}.",
            "Send JSON, with Content-Type: application/json.",
            415,
        )
    body = await _read_body(request, options_of(request).max_body)
    try:
        # Some programs write a byte order mark first, which RFC 8259 lets a reader pass over.
        data = json.loads(body.decode("utf-8-sig"), parse_constant=_no_number)
    except RecursionError:
        raise _no_json("it is nested too deeply") from None
    except UnicodeDecodeError as error:
        raise _no_json(f"byte {body[error.start]:#04x} at {error.start} is not UTF-8") from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise _no_json(f"{error.msg}, at {where}" if body.strip() else "it is empty") from None
    except ValueError as error:  # NaN, or a number of too many digits
        raise _no_json(reason(error)) from None
    if not isinstance(data, dict):
        raise _no_json("it is not an object")
    return data


async def _read_body(request: Request, limit: int) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise InvalidCall(f"The body is larger than {limit} bytes.", "Send a shorter one.", 413)
    return bytes(body)


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _no_json(why: str) -> InvalidCall:
    return InvalidCall(f"The body is no JSON object in UTF-8: {why}.", "Correct the body.", 400)


def fingerprint(data: Mapping[str, Any]) -> str:
    """The same for two bodies that ask for the same."""
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()
