"""Files in and out, in place of Gradio's own routes: to Gradio any file is as good as another."""

from __future__ import annotations

import asyncio
from http import HTTPStatus

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response

from shared.errors import InvalidCall
from space.page import examples
from space.page.calls import FILE
from space.page.files import PageFiles

_MOST_FILES = 20
_SECONDS = 300.0
"""In which an upload has to arrive: until then it takes room from others."""


async def take_upload(
    request: Request, files: PageFiles, owner: str, counted_to: str, size: int
) -> Response:
    """Keep what a form of `size` bytes brings; the answer is Gradio's, the names of the uploads.

    Raises `InvalidCall`, `RateLimited` and what a full disk raises.
    """
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind != "multipart/form-data":
        raise InvalidCall(
            f"The body's type is {kind[:60] or 'not given'}.", "Send multipart/form-data.", 415
        )
    with files.room_for_upload(size, counted_to):
        try:
            async with asyncio.timeout(_SECONDS):
                form = await request.form(max_files=_MOST_FILES, max_fields=_MOST_FILES)
        except TimeoutError:
            raise InvalidCall("The upload took too long.", "Send a smaller one.", 408) from None
        except HTTPException as error:
            raise InvalidCall(
                f"The form cannot be read: {error.detail}", "Correct the body.", 400
            ) from None
        given = form.getlist("files")
        uploads = [file for file in given if isinstance(file, UploadFile)]
        try:
            if not uploads or len(uploads) < len(given):
                raise InvalidCall("There is no file among them.", "Send each as files.", 422)
            names = [
                await asyncio.to_thread(files.add_upload, file.file, owner, counted_to)
                for file in uploads
            ]
        finally:
            await form.close()
    return JSONResponse(names)


def send_file(request: Request, files: PageFiles, owner: str) -> Response:
    """A picture of the page's. Raises `NotFound` for whatever else is named."""
    address: str = request.scope["path"].removeprefix(FILE)
    path = examples.path(address) or files.find(address, owner)
    headers = {"X-Content-Type-Options": "nosniff", "Cache-Control": "private, immutable"}
    return FileResponse(path, HTTPStatus.OK, headers)
