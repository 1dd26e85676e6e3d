"""Cygnet on Modal: a picture, a folder of pictures, or an image endpoint of your own.

    modal secret create --force cygnet CYGNET_API_KEY="$(openssl rand -hex 32 | tee /dev/stderr)"
    modal run modal_app.py::download_weights
    modal run modal_app.py --prompt "a red fox"
    modal run modal_app.py::batch --prompts-file prompts.csv --out out/
    modal deploy modal_app.py

`CYGNET_CHECKPOINT=cygnet-tiny` before each of them drives the same road without a GPU, for cents.
docs/modal.md goes through it step by step. This file is imported on your machine and again in every
container, so it reads no other file and depends on nothing that only one of them has.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import modal

from shared.checkpoints import ON_A_GPU, get_checkpoint
from shared.errors import CygnetError
from shared.settings import VARIABLES, settings

if TYPE_CHECKING:
    from shared.backends.modal.records import Records

MINUTES = 60
HOURS = 60 * MINUTES

# Chosen by the environment when the app is deployed; the image carries the choice to the containers.

CHECKPOINT = settings().checkpoint_or(ON_A_GPU)
SHIPS = get_checkpoint(CHECKPOINT).folder is not None
"""Ships with Cygnet, and is small enough for a CPU: no GPU is asked for, and nothing downloaded."""
GPU_NAMES = ",".join(settings().modal_gpu) or "none"
GPUS = [] if SHIPS else list(settings().modal_gpu)
"""The best first, then what will do where there is none free. 48 GB hold every checkpoint."""
SNAPSHOT = settings().modal_snapshot
"""cpu: the weights come back with a copied memory instead of being read and converted again.
gpu also keeps what is on the GPU, and is experimental at Modal's. none reads them each time."""
ACCELERATION = {
    variable: str(getattr(settings().acceleration, path[-1]))
    for variable, path in VARIABLES.items()
    if path[0] == "acceleration"
    and path[-1] in settings().acceleration.model_fields_set - {"device"}
}
"""How the weights are loaded and run, where that was set; the device is for Modal to give."""

# The same for everyone, with the reason beside each; change them here.

CORES = 4.0  # reads weights and encodes files; tokenizers and the decoding thread have their own
MEMORY_GIB = get_checkpoint(CHECKPOINT).memory_gib + 4  # the weights pass through, and Python
SCALEDOWN = 1 * MINUTES  # an idle GPU costs as much as a busy one
MIN_CONTAINERS = 0  # nothing costs anything while nobody asks
BUFFER_CONTAINERS = 0  # a spare machine for bursts: worth its price only with steady traffic
MAX_CONTAINERS = 8  # what a runaway script can spend at a time
TARGET_INPUTS = 4  # two or three pictures of 832x480 fill a forward; the next waits for its step
MAX_INPUTS = 8  # while another machine starts, better a longer batch than no answer
TIMEOUT = 20 * MINUTES  # of one request; raise it if many large images take longer on your GPU
STARTUP_TIMEOUT = 20 * MINUTES  # weights of 40 GB over a slow day's network
RETRIES = modal.Retries(max_retries=2, initial_delay=1.0)  # machines die, and are preempted
MAX_QUEUED = 256  # the next job gets a clear 429 instead of an hour's wait

MAKE_A_KEY = (
    'modal secret create --force cygnet CYGNET_API_KEY="$(openssl rand -hex 32 | tee /dev/stderr)"'
)

ROOT = Path(__file__).parent
HUB_CACHE = "/root/.cache/huggingface/hub"
CONSTRAINTS = "/cygnet/constraints.txt"


def with_packages(*extras: str) -> modal.Image:
    """Python with the packages of these extras, in the versions that are tested."""
    return (
        modal.Image.debian_slim(python_version="3.11")
        .add_local_file(ROOT / "constraints.txt", CONSTRAINTS, copy=True)
        .pip_install_from_pyproject(
            str(ROOT / "pyproject.toml"),
            optional_dependencies=[*extras],
            extra_options=f"--constraint {CONSTRAINTS}",
        )
        .env(
            {
                "CYGNET_CHECKPOINT": CHECKPOINT,
                "CYGNET_MODAL_GPU": GPU_NAMES,
                "CYGNET_MODAL_SNAPSHOT": SNAPSHOT,
                "CYGNET_OPENAI_MODELS": ",".join(
                    f"{name}={checkpoint}" for name, checkpoint in settings().openai_models.items()
                ),
                "HF_HUB_CACHE": HUB_CACHE,
                "HF_XET_HIGH_PERFORMANCE": "1",
                **ACCELERATION,
            }
        )
    )


def with_quantisation(image: modal.Image) -> modal.Image:
    if settings().acceleration.quantisation == "none":
        return image
    return image.pip_install("torchao", extra_options=f"--constraint {CONSTRAINTS}")


engine_image = (
    with_quantisation(with_packages("local"))
    .add_local_dir(ROOT / "shared" / "weights", "/root/shared/weights")
    .add_local_python_source("shared")
)
web_image = with_packages("serve").add_local_python_source("shared")  # no torch: starts at once

app = modal.App("cygnet")
weights = modal.Volume.from_name("cygnet-weights", create_if_missing=True)
api_key = modal.Secret.from_name("cygnet", required_keys=["CYGNET_API_KEY"])
job_rows = modal.Dict.from_name("cygnet-jobs", create_if_missing=True)
event_rows = modal.Dict.from_name("cygnet-events", create_if_missing=True)

GENERATOR: dict[str, Any] = dict(
    image=engine_image,
    gpu=GPUS or None,
    cpu=CORES,
    memory=int(MEMORY_GIB * 1024),
    volumes={HUB_CACHE: weights},
    env={"HF_HUB_OFFLINE": "1"},  # download_weights fetches, once, and not on a GPU's time
    enable_memory_snapshot=SNAPSHOT != "none",
    experimental_options={"enable_gpu_snapshot": True} if SNAPSHOT == "gpu" else {},
    scaledown_window=SCALEDOWN,
    min_containers=MIN_CONTAINERS,
    buffer_containers=BUFFER_CONTAINERS,
    max_containers=MAX_CONTAINERS,
    timeout=TIMEOUT,
    startup_timeout=STARTUP_TIMEOUT,
    retries=RETRIES,
)

WEB: dict[str, Any] = dict(
    image=web_image,
    secrets=[api_key],
    cpu=0.25,  # it checks keys and passes events on
    memory=512,
    scaledown_window=5 * MINUTES,  # cheap to keep, and the next caller need not wait for it
    max_containers=2,
    timeout=TIMEOUT,  # of one request, which may be the stream of a whole job
)


@app.function(
    image=engine_image,
    volumes={HUB_CACHE: weights},
    cpu=CORES,  # the transfer unpacks and checks what it gets
    timeout=2 * HOURS,
    retries=3,
)
def download_weights() -> None:
    """Fetch the checkpoint's files into the Volume. Run it once; again goes on where it stopped."""
    from shared.engine.loading import fetch

    revision = fetch(get_checkpoint(CHECKPOINT))
    weights.commit()
    print(f"{CHECKPOINT} is there, revision {revision}.")


@app.cls(**GENERATOR)
@modal.concurrent(max_inputs=MAX_INPUTS, target_inputs=TARGET_INPUTS)
class Generator:
    """The engine on a GPU. Requests that one container serves at a time share its batches."""

    @modal.enter(snap=SNAPSHOT != "none")
    def load(self) -> None:
        """What a snapshot may hold: weights in memory, and code that has run once."""
        from shared.backends.modal.worker import Worker
        from shared.prices import Machine

        machine = Machine(CORES, MEMORY_GIB)
        self.worker = Worker(CHECKPOINT, machine, has_gpu=bool(GPUS), snapshot=SNAPSHOT)
        self.worker.load()

    @modal.enter(snap=False)
    def wake(self) -> None:
        """What each restored container does anew: find its GPU, move there, take requests."""
        self.worker.wake()

    @modal.exit()
    async def close(self) -> None:
        await self.worker.aclose()

    @modal.method()
    async def run(self, request: dict[str, Any]) -> list[dict[str, Any]]:
        """The images and the result as events; of a failure, the error."""
        return await self.worker.run(request)

    @modal.method()
    async def stream(self, request: dict[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        """The same events as every backend's, one by one."""
        async with contextlib.aclosing(self.worker.stream(request)) as events:
            async for event in events:
                yield event

    @modal.method()
    async def run_job(self, job: str, request: dict[str, Any]) -> None:
        """A job of the web door: its events go where every web container can read them."""
        await self.worker.run_job(records(), job, request)


def generator() -> Any:
    """The class's handle, here and in every container. Modal's types lose it under `concurrent`."""
    return cast(Any, Generator)()


def records() -> Records:
    """The jobs, where every container can read and write them."""
    from shared.backends.modal.platform import DictTable
    from shared.backends.modal.records import Records

    return Records(DictTable(job_rows), DictTable(event_rows))


@app.function(**WEB)
@modal.concurrent(max_inputs=100)
@modal.asgi_app(label="cygnet")
def web() -> Any:
    """The HTTP API. Keys and bodies are checked here, before a GPU is woken and paid for."""
    from shared.api import ApiOptions, create_app, create_refusal
    from shared.api.call_jobs import CallJobs
    from shared.api.logs import log_to_stderr
    from shared.backends.modal.platform import MethodCalls

    log_to_stderr()
    keys = tuple(key.get_secret_value() for key in settings().api_keys)
    if not keys:
        return create_refusal("This deployment has no key, so it serves nobody.", MAKE_A_KEY)
    options = ApiOptions(keys=keys, max_queued=MAX_QUEUED)
    calls = MethodCalls(generator().run_job)
    return create_app(CallJobs("modal", calls, records(), CHECKPOINT, options), options)


@app.local_entrypoint()
def main(*arguments: str) -> None:
    """One picture for `--prompt "..."`, a folder of them for `--prompts-file FILE --out DIR`.

    The other options are the fields of a request, and those of `cygnet batch`;
    `modal run modal_app.py -- --help` lists them.
    """
    from shared.console import print_error

    many = any(word.partition("=")[0] == "--prompts-file" for word in arguments)
    try:
        draw_many(arguments) if many else draw_one(arguments)
    except CygnetError as error:
        print_error(error)
        raise SystemExit(error.exit_code) from None


# `modal run modal_app.py` without a name works only where there is one entrypoint, so that
# `modal run modal_app.py::batch` has to be another name of the same.
batch = main


def draw_one(arguments: Sequence[str]) -> None:
    """Follow a request's events, and save each image as it comes."""
    from shared.backends.modal.wire import as_event, check_served
    from shared.cli.parser import Parser
    from shared.cli.request import FLAGS, add_request_options
    from shared.console import LineProgress, summary
    from shared.contract import Done, GenerationRequest, ImageReady, parse_request
    from shared.outputs import Outputs, format_of

    parser = Parser(prog="modal run modal_app.py --")
    add_request_options(parser).add_argument("--prompt", required=True, help="what to draw")
    parser.add_argument("--out", default="outputs", metavar="PATH", help="file or folder")
    args = parser.parse_args(arguments)
    given = {name: getattr(args, name, None) for name in GenerationRequest.model_fields}
    given["checkpoint"] = given["checkpoint"] or CHECKPOINT
    request = parse_request(given | {"output_format": format_of(args.out)}, FLAGS)
    check_served(request, CHECKPOINT)
    outputs = Outputs(args.out, request, force=False)
    with LineProgress(request) as progress:
        for told in generator().stream.remote_gen(request.model_dump(mode="json")):
            event = as_event(told)
            progress.show(event)
            if isinstance(event, ImageReady):
                print(outputs.save(event))
            elif isinstance(event, Done):
                progress.note(summary(event.result))
                for remark in event.result.remarks:
                    progress.remark(remark)


def draw_many(arguments: Sequence[str]) -> None:
    """`cygnet batch` over as many machines as it takes."""
    from shared.backends.modal.platform import Fleet
    from shared.cli.batch import add_batch_options, batch_options, run_batch
    from shared.cli.parser import Parser

    parser = Parser(prog="modal run modal_app.py::batch --")
    parser.add_argument("--prompts-file", dest="file", required=True, metavar="FILE")
    add_batch_options(parser)
    parser.set_defaults(checkpoint=CHECKPOINT, concurrency=MAX_CONTAINERS * MAX_INPUTS)
    args = parser.parse_args(arguments)
    fleet = Fleet(generator().run, CHECKPOINT)
    run_batch(batch_options(args), lambda: fleet, dry_run=args.dry_run, quiet=args.quiet)
