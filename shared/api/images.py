"""`/v1/images/{id}`: the files that were made, whole or small."""

from __future__ import annotations

import asyncio
from typing import Annotated, Literal

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import Response

from shared.api.problems import documented
from shared.api.schemas import BYTES
from shared.api.security import Jobs, Viewer
from shared.formats import FORMATS, media_type
from shared.images import thumbnail

router = APIRouter(prefix="/v1/images", tags=["images"])

Size = Literal["128", "256", "512"]

_FILES = {media_type(kind): BYTES for kind in FORMATS}
_ANY = "application/octet-stream"
"""What a caller may accept that knows no type of image: generators of clients are such."""


@router.get(
    "/{image}",
    response_class=Response,
    responses={
        200: {"description": "the file", "content": _FILES | {_ANY: BYTES}},
        304: {"description": "you have it"},
        **documented(404, 422),
    },
)
async def get_image(
    request: Request,
    image: str,
    viewer: Viewer,
    jobs: Jobs,
    size: Annotated[
        Size | None, Query(description="of a JPEG thumbnail's longer side; none for the file")
    ] = None,
    if_none_match: Annotated[str, Header()] = "",
    accept: Annotated[str, Header(include_in_schema=False)] = "",
) -> Response:
    """An image that was made, with its request inside; or a thumbnail of it, without. Its signed
    address opens without a key until it expires."""
    stored = await jobs.image(image, viewer)
    tag = f'"{stored.sha256}{f"-{size}" if size else ""}"'
    # An image never changes: its request and seed decide what it is.
    headers = {
        "ETag": tag,
        "Cache-Control": "private, max-age=31536000, immutable",
        "Vary": "Accept",
    }
    if _matches(tag, if_none_match):
        return Response(status_code=304, headers=headers)
    data = await jobs.read_image(stored)
    if size:
        data = await asyncio.to_thread(thumbnail, data, int(size))
    headers["X-Content-Type-Options"] = "nosniff"
    kind = media_type("jpeg" if size else stored.format)
    if accept.strip().lower() == _ANY:
        kind = _ANY
    return Response(data, headers=headers, media_type=kind)


def _matches(tag: str, if_none_match: str) -> bool:
    given = [one.strip().removeprefix("W/") for one in if_none_match.split(",")]
    return "*" in given or tag in given
