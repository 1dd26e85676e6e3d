"""The Space's door: opens the backend that CYGNET_BACKEND names, and launches the site over it."""

from __future__ import annotations

import gradio as gr
from fastapi import FastAPI
from starlette.routing import Mount

from shared.api import ApiOptions
from shared.backends import find_backend
from shared.settings import data_folder, settings
from shared.site import create_site


def main() -> None:
    backend = find_backend(settings().backend, previews=True)()
    launch(create_site(backend, data_folder(), ApiOptions(warm_up=True)))


def launch(site: FastAPI) -> None:
    """Serve the site where GRADIO_SERVER_NAME and GRADIO_SERVER_PORT say, until it is stopped.

    Through `launch`, because Spaces expect it, and ZeroGPU packs the weights there; what is launched
    is an empty page with the site in front.
    """
    with gr.Blocks() as nothing:
        pass
    nothing.launch(
        app_kwargs={
            "routes": [Mount("/", site)],
            "lifespan": lambda _: site.router.lifespan_context(site),
        },
        ssr_mode=False,
        quiet=True,
    )


if __name__ == "__main__":
    main()
