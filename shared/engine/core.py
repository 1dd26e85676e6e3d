"""The batch of active images and its `step()`: encode, noise, denoise, decode, image.

Images join and leave between steps. A step picks active images of one size, runs one transformer
forward over them, each at its own timestep, then advances each along its own schedule. An image's
numbers never mix with its neighbours', so that its picture does not depend on who else is in the
batch.

This module knows no threads and no queues: `run` serves one request in line, for processes that
fork and for tests; `shared.engine.thread` serves many.
"""

from __future__ import annotations

import logging
import time
import traceback
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from PIL import Image

from shared.contract import (
    Done,
    Event,
    GenerationRequest,
    GenerationResult,
    ImageReady,
    Step,
    Timings,
)
from shared.engine.acceleration import is_out_of_memory
from shared.engine.denoising import guided_velocity
from shared.engine.frames import to_image
from shared.engine.loading import Model
from shared.engine.samplers import Sampler, make_scheduler
from shared.engine.text import TextKeys
from shared.errors import CygnetError, InternalError, OutOfMemory
from shared.images import encode_image, preview_jpeg

log = logging.getLogger(__name__)

TOKEN_BUDGET = 4096
"""Tokens of one forward. Past about this many a larger batch no longer runs faster per image
(published for Qwen-Image: 2.8x for 4 images of 512x512, 1.02x for 2 of 1024x1024)."""


@dataclass(eq=False)
class Generation:
    """One request on its way: which of its images still wait, and the seconds spent."""

    request: GenerationRequest
    waiting: deque[int] = field(default_factory=deque)
    submitted: float = field(default_factory=time.perf_counter)
    loading: float = 0.0
    encoding: float = 0.0
    decoding: float = 0.0
    started: float = 0.0
    denoised: float = 0.0
    finished: int = 0
    stopped: bool = False
    position: int = 0
    text: tuple[TextKeys, TextKeys | None] | None = None
    remarks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self.waiting.extend(range(self.request.num_images))

    def timings(self) -> Timings:
        """Seconds by phase; `denoising` runs from the first step to the last of all images."""
        return Timings(
            queued=max(0.0, self.started - self.submitted - self.loading),
            loading=self.loading,
            encoding=self.encoding,
            denoising=self.denoised - self.started - self.encoding,
            decoding=self.decoding,
            total=time.perf_counter() - self.submitted,
        )


@dataclass(eq=False)
class ActiveImage:
    """One image between noise and picture. `latents`: (1, channels, 1, height, width), float32."""

    generation: Generation
    index: int
    latents: torch.Tensor
    sampler: Sampler
    prompt: TextKeys
    negative_prompt: TextKeys | None
    step: int = 0
    estimate: torch.Tensor | None = None
    """The picture the last step believed in; the previews show it."""

    @property
    def done(self) -> bool:
        return self.step == len(self.sampler.timesteps)


@dataclass(frozen=True)
class Failure:
    """An image that cannot go on, and why; the others of the batch are unharmed."""

    image: ActiveImage
    error: CygnetError


def encode(model: Model, request: GenerationRequest) -> tuple[TextKeys, TextKeys | None]:
    """The request's text, and its negative text where guidance needs it."""
    prompt = model.prompts.encode(request.prompt)
    if request.guidance_scale <= 1:
        return prompt, None
    return prompt, model.prompts.encode(request.negative_prompt)


def unread(model: Model, request: GenerationRequest) -> tuple[str, ...]:
    """What of the request's text the checkpoint does not read, in sentences."""
    remarks = [*model.prompts.remarks(request.prompt, "prompt")]
    if request.guidance_scale > 1:
        remarks += model.prompts.remarks(request.negative_prompt, "negative prompt")
    return tuple(remarks)


def noise(
    model: Model, request: GenerationRequest, seed: int
) -> tuple[torch.Tensor, torch.Generator]:
    """One image's first latents, drawn on the CPU: every device starts from the same ones."""
    generator = torch.Generator("cpu").manual_seed(seed)
    scale = model.latent_scale
    shape = (1, model.latent_channels, 1, request.height // scale, request.width // scale)
    return torch.randn(shape, generator=generator).to(model.device), generator


@torch.inference_mode()
def denoise(model: Model, images: Sequence[ActiveImage]) -> list[Failure]:
    """Advance images of one size by one step; returns those that failed.

    If the forward over all of them fails, each half is tried alone, down to the image at fault:
    nothing has changed before a forward succeeds.
    """
    flow = _forward(model, images)
    if isinstance(flow, Exception):
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if len(images) > 1:
            half = len(images) // 2
            return denoise(model, images[:half]) + denoise(model, images[half:])
        return [Failure(images[0], as_error(flow, images[0].generation.request.one_picture))]
    failures = []
    for image, own_flow in zip(images, flow.split(1), strict=True):
        try:
            image.estimate = image.sampler.estimate(image.step, own_flow, image.latents)
            image.latents = image.sampler.advance(image.step, own_flow, image.latents)
            image.step += 1
        except Exception as error:
            failures.append(Failure(image, as_error(error, image.generation.request.one_picture)))
    return failures


def _forward(model: Model, images: Sequence[ActiveImage]) -> torch.Tensor | Exception:
    """The flow of each image, or what went wrong, with the failed forward's memory given back."""
    try:
        return guided_velocity(
            model.transformer,
            torch.cat([image.latents for image in images]),
            [image.sampler.timesteps[image.step] for image in images],
            [image.prompt for image in images],
            [image.negative_prompt for image in images],
            [image.generation.request.guidance_scale for image in images],
        )
    except Exception as error:  # out of memory, or a fault in a kernel below us
        release(error)
        return error


def decode(model: Model, image: ActiveImage) -> Image.Image:
    """The finished picture. Raises `InternalError` if the numbers overflowed on the way."""
    pixels = model.frames(image.latents)[0]
    if not (torch.isfinite(image.latents).all() and torch.isfinite(pixels).all()):
        raise InternalError(
            "The numbers overflowed, and the picture would be blank.",
            "Unset CYGNET_DTYPE and CYGNET_QUANTISATION, or lower guidance_scale.",
        )
    return to_image(pixels)


def release(error: BaseException) -> None:
    """Let go of what the frames of a caught error hold: tensors, half-loaded weights."""
    cause: BaseException | None = error
    while cause:
        traceback.clear_frames(cause.__traceback__)
        cause = cause.__cause__ or cause.__context__


def as_error(error: BaseException, doing: str) -> CygnetError:
    """An error of a library below us, in our words; the log has the cause."""
    if isinstance(error, CygnetError):
        return error
    if is_out_of_memory(error):
        return OutOfMemory(
            f"The device ran out of memory while {doing}.",
            "Ask for a smaller size or checkpoint, or set CYGNET_QUANTISATION=int8.",
        )
    log.error("failed while %s", doing, exc_info=error)
    internal = InternalError(
        f"The engine failed while {doing}: {type(error).__name__}.",
        "Try again; if it repeats, report it with the log.",
    )
    internal.__cause__ = error
    return internal


class Core:
    """The active images of one model. Not thread-safe, except for `finish`."""

    def __init__(self, model: Model, token_budget: int = TOKEN_BUDGET) -> None:
        self.model = model
        self.token_budget = token_budget
        self.images: list[ActiveImage] = []

    def start(self, generation: Generation) -> None:
        """Add a request's next waiting image to the batch: it takes part from the next step on."""
        request, index = generation.request, generation.waiting.popleft()
        begin = time.perf_counter()
        generation.started = generation.started or begin
        if generation.text is None:
            generation.text = encode(self.model, request)
            generation.remarks = unread(self.model, request)
        prompt, negative_prompt = generation.text
        generation.encoding += time.perf_counter() - begin
        latents, generator = noise(self.model, request, request.image_seed(index))
        scheduler = make_scheduler(
            self.model.checkpoint, request.scheduler, request.steps, self.model.scheduler_config
        )
        sampler = Sampler(scheduler, generator)
        self.images.append(
            ActiveImage(generation, index, latents, sampler, prompt, negative_prompt)
        )

    def has_room(self, request: GenerationRequest) -> bool:
        """Whether one more image of this request fits the forward's budget of tokens."""
        active = sum(self._tokens(image.generation.request) for image in self.images)
        return not self.images or active + self._tokens(request) <= self.token_budget

    def step(self) -> tuple[list[ActiveImage], list[Failure]]:
        """Advance the images of one size by one step: those advanced, and those that failed.

        Finished and failed images leave the batch. The size whose turn it is is that of the image
        that waits longest.
        """
        if not self.images:
            return [], []
        shape = self.images[0].latents.shape
        batch = [image for image in self.images if image.latents.shape == shape]
        failures = denoise(self.model, batch)
        failed = {failure.image for failure in failures}
        advanced = [image for image in batch if image not in failed]
        self.drop(batch)
        self.images += [image for image in advanced if not image.done]
        for image in advanced:
            image.generation.denoised = time.perf_counter()
        return advanced, failures

    def drop(self, images: Sequence[ActiveImage]) -> None:
        """Take images out of the batch, before the next step."""
        leaving = set(images)
        self.images = [image for image in self.images if image not in leaving]

    def preview(self, image: ActiveImage) -> bytes | None:
        """A small JPEG of what the last step believed the picture to be."""
        if image.estimate is None:
            return None
        return preview_jpeg(self.model.preview(image.estimate))

    def finish(self, image: ActiveImage) -> ImageReady:
        """Decode and encode one image. May run beside `step` in one other thread."""
        generation = image.generation
        begin = time.perf_counter()
        picture = decode(self.model, image)
        request = generation.request.for_image(image.index)
        data = encode_image(picture, request, self.model.revision)
        generation.decoding += time.perf_counter() - begin
        generation.finished += 1
        return ImageReady(index=image.index, seed=request.seed, image=data)

    def result(self, generation: Generation, backend: str) -> GenerationResult:
        """What a finished generation says about itself."""
        request = generation.request
        return GenerationResult(
            request=request,
            seeds=tuple(request.image_seed(index) for index in range(request.num_images)),
            timings=generation.timings(),
            device=str(self.model.device),
            revision=self.model.revision,
            backend=backend,
            remarks=generation.remarks,
        )

    def _tokens(self, request: GenerationRequest) -> int:
        rows = 2 if request.guidance_scale > 1 else 1
        return rows * self.model.tokens(request.width, request.height)


def run(model: Model, request: GenerationRequest, previews: bool = False) -> Iterator[Event]:
    """The events of one request, served in line: no thread, no queue.

    To cancel, stop reading. Raises `CygnetError` when the work cannot be done.
    """
    core = Core(model)
    generation = Generation(request)
    while generation.waiting or core.images:
        while generation.waiting and core.has_room(request):
            core.start(generation)
        began = time.perf_counter()
        advanced, failures = core.step()
        for failure in failures:
            raise failure.error
        for image in advanced:
            yield step_event(core, image, previews, len(advanced), began)
        for image in advanced:
            if image.done:
                yield core.finish(image)
    yield Done(result=core.result(generation, backend="local"))


def step_event(core: Core, image: ActiveImage, preview: bool, batch: int, began: float) -> Step:
    """What is said of one image after a step, which began at that time of `time.perf_counter`."""
    return Step(
        index=image.index,
        step=image.step,
        steps=len(image.sampler.timesteps),
        preview=core.preview(image) if preview else None,  # on a GPU, this waits for the step
        batch=batch,
        seconds=time.perf_counter() - began,
    )
