"""A peer: a Gradio app over stock `WanPipeline`, with Gradio's own queue."""

from __future__ import annotations

import argparse

import gradio as gr
from PIL import Image

from benchmarks.stock import draw, load
from shared.checkpoints import Checkpoint, get_checkpoint


def create(checkpoint: Checkpoint) -> gr.Interface:
    pipe = load(checkpoint)
    pipe.set_progress_bar_config(disable=True)

    def generate(prompt: str, seed: float) -> Image.Image:
        return draw(pipe, checkpoint, [prompt], [int(seed)])[0]

    picture = gr.Image(format="png")
    return gr.Interface(generate, [gr.Textbox(), gr.Number()], picture, api_name="generate")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=get_checkpoint)
    parser.add_argument("port", type=int)
    arguments = parser.parse_args()
    app = create(arguments.checkpoint)
    app.launch(server_name="127.0.0.1", server_port=arguments.port, quiet=True)
