"""What Gradio answers, in our words: nothing of the server's insides reaches a client, neither in an error
nor in a path, and nonsense that a client sends fills no log."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import gradio as gr
from gradio_client.utils import encode_file_path, is_file_obj_with_meta, traverse

from shared.api.problems import status_of
from shared.errors import CygnetError, InternalError, InvalidRequest, error_of, error_types

log = logging.getLogger(__name__)

_OF_NONSENSE = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""What Gradio, and the parts of the page, raise for values that its own clients would not send. A backend's
faults are not among them: the workshop has told those already."""

_Handler = Callable[..., Awaitable[Any]]


def tell_in_our_words(page: gr.Blocks, folder: Path) -> None:
    """Have `page` turn every exception into an error of Gradio's that says ours, and note in the call's
    `state.status` what HTTP calls it; and call each file by its address within `folder`."""
    # On this page alone: a subclass of Blocks would be told from it by Gradio's own bookkeeping.
    vars(page)["preprocess_data"] = _reading(page.preprocess_data)
    vars(page)["process_api"] = _calling(page.process_api)
    vars(page)["postprocess_data"] = _giving(page.postprocess_data, folder)


def gradio_error(error: CygnetError) -> gr.Error:
    """Our error as Gradio sends it: code, message and next step, and nothing of a traceback."""
    return gr.Error(
        f"{error.message} Next: {error.next_step}", title=error.code, print_exception=False
    )


def _unfit(why: str) -> InvalidRequest:
    return InvalidRequest(f"What was sent does not fit the page: {why}.", "Load the page again.")


def _reading(preprocess: _Handler) -> _Handler:
    """What the parts of the page cannot take is the caller's fault."""

    async def read(*given: Any, **named: Any) -> Any:
        try:
            return await preprocess(*given, **named)
        except Exception as error:
            why = error.message if isinstance(error, gr.Error) else type(error).__name__
            raise gradio_error(_unfit(why)) from None

    return read


def _calling(process: _Handler) -> _Handler:
    async def call(*given: Any, **named: Any) -> Any:
        try:
            return await process(*given, **named)
        except gr.Error as error:
            told = error
        except CygnetError as error:
            told = gradio_error(error)
        except _OF_NONSENSE as error:
            *_, place = traceback.extract_tb(error.__traceback__)
            where = f"{Path(place.filename).name}:{place.lineno}"
            log.warning("a call made no sense: %s in %s", type(error).__name__, where)
            told = gradio_error(_unfit(type(error).__name__))
        except Exception as fault:
            log.exception("a part of the page failed")
            message = f"Something in the page failed ({type(fault).__name__})."
            told = gradio_error(
                InternalError(message, "Try again; the server's log has the cause.")
            )
        if (request := named.get("request")) is not None:
            request.state.status = _status(told)
        told.print_exception = False
        raise told from None

    return call


def _giving(postprocess: _Handler, folder: Path) -> _Handler:
    start = f"{folder}/"

    def named(file: dict[str, Any]) -> dict[str, Any]:
        path, url = file["path"].removeprefix(start), file["url"]
        return file | {"path": path, "url": url.replace(encode_file_path(start), "", 1)}

    async def give(*given: Any, **options: Any) -> Any:
        return traverse(await postprocess(*given, **options), named, is_file_obj_with_meta)

    return give


def _status(error: gr.Error) -> int:
    """Of an error of ours; what Gradio itself refuses is the caller's fault."""
    known = error.title in {kind.code for kind in error_types()}
    return status_of(error_of(error.title, "", "")) if known else 422
