"""The Space's door: opens the backend that CYGNET_BACKEND names, and launches the site over it."""

from __future__ import annotations

import importlib

from fastapi import FastAPI
from starlette.routing import Mount

from shared import proxies
from shared.api import ApiOptions
from shared.backends import Backend, find_backend, read_backends
from shared.checkpoints import get_checkpoint
from shared.settings import data_folder, settings
from shared.site import create_site
from space import gradio as gr


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
    is an empty page with the site in front.
    """
    with gr.Blocks() as nothing:
        pass
    with proxies.hidden():  # it calls itself, to see that it is there
        nothing.launch(
            app_kwargs={
                "routes": [Mount("/", site)],
                "lifespan": lambda _: site.router.lifespan_context(site),
            },
            ssr_mode=False,
            quiet=True,
            prevent_thread_lock=True,
        )
    nothing.block_thread()


if __name__ == "__main__":
    main()
