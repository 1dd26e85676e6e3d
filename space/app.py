"""The Space's door: opens the backend that CYGNET_BACKEND names, and launches the site over it."""

from __future__ import annotations

import importlib
import os

from fastapi import FastAPI
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from shared import proxies
from shared.api import ApiOptions
from shared.backends import Backend, find_backend, read_backends
from shared.checkpoints import get_checkpoint
from shared.settings import data_folder, settings
from shared.site import create_site


def main() -> None:
    keys = tuple(key.get_secret_value() for key in settings().api_keys)  # without one, it is public
    here = read_backends().draws_here(settings().backend)  # elsewhere it may wake a GPU, for money
    options = ApiOptions(keys=keys, warm_up=here and not settings().zero_gpu)
    launch(create_site(open_backend(), data_folder(), options))


def open_backend() -> Backend:
    """On ZeroGPU its own where the engine of this process is wanted; else the one of that name."""
    name = settings().backend
    if not (settings().zero_gpu and name == "local"):
        return find_backend(name, previews=True, named=False)()
    spaces = importlib.import_module("spaces")  # the host's; before torch, which it patches
    from space.ahead import compile_ahead
    from space.zero import ZeroBackend, load_for_zero

    model = load_for_zero(get_checkpoint(settings().checkpoint), settings().acceleration)
    if settings().acceleration.compile:
        compile_ahead(model, spaces)
    return ZeroBackend(model, spaces.GPU)


def launch(site: FastAPI) -> None:
    """Serve the site where GRADIO_SERVER_NAME and GRADIO_SERVER_PORT say, until it is stopped.

    Through `launch`, because Spaces expect it, and ZeroGPU packs the weights there; what is launched
    is an empty page, and the site answers in its place.
    """
    import gradio as gr  # after the site, which says where Gradio may keep files
    from gradio.routes import App

    class SiteApp(App):
        """Gradio's own answers, CORS for every page of this machine among them, are never asked for."""

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "lifespan":
                await super().__call__(scope, receive, send)
            elif scope.get("path") == "/gradio_api/startup-events":  # `launch` asks, without a key
                await PlainTextResponse("true")(scope, receive, send)
            else:
                await site(scope, receive, send)

    os.environ.setdefault("FORWARDED_ALLOW_IPS", _PROXIES)
    with gr.Blocks() as nothing:
        pass
    with proxies.hidden():  # it calls itself, to see that it is there
        nothing.launch(
            _app=SiteApp(),
            app_kwargs={"lifespan": lambda _: site.router.lifespan_context(site)},
            ssr_mode=False,
            mcp_server=False,
            quiet=True,
            prevent_thread_lock=True,
        )
    nothing.block_thread()


_PROXIES = "127.0.0.1,::1,10.0.0.0/8,172.16.0.0/12,192.168.0.0/16"
"""Whom uvicorn believes who a caller is: on Spaces nothing but their proxy reaches this process."""


if __name__ == "__main__":
    main()
