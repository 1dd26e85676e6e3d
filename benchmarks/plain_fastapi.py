"""A peer: what anyone would write first, a FastAPI app with a lock around stock `WanPipeline`."""

from __future__ import annotations

import argparse
import io
import threading

import uvicorn
from fastapi import FastAPI
from fastapi.responses import Response
from pydantic import BaseModel

from benchmarks.stock import draw, load
from shared.checkpoints import Checkpoint, get_checkpoint


class Wanted(BaseModel):
    prompt: str
    seed: int


def create(checkpoint: Checkpoint) -> FastAPI:
    pipe = load(checkpoint)
    pipe.set_progress_bar_config(disable=True)
    lock = threading.Lock()
    app = FastAPI()

    @app.post("/generate")
    def generate(wanted: Wanted) -> Response:
        with lock:
            [picture] = draw(pipe, checkpoint, [wanted.prompt], [wanted.seed])
        file = io.BytesIO()
        picture.save(file, "PNG")
        return Response(file.getvalue(), media_type="image/png")

    return app


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=get_checkpoint)
    parser.add_argument("port", type=int)
    arguments = parser.parse_args()
    uvicorn.run(create(arguments.checkpoint), port=arguments.port, log_level="warning")
