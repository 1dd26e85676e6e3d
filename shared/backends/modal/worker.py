"""The engine of one machine on Modal: loaded in two phases, around a snapshot of its memory.

What the first phase leaves in memory may be restored in many machines, on another day. So it draws no
random number that a picture could depend on: seeds come with the requests, or from the system when
a request is read. And if the snapshot is taken without a GPU, nothing of that may stay in it.

A machine for which a GPU was asked draws on that or not at all: both phases raise without one.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING

from shared.backends.local import LocalBackend
from shared.backends.modal.methods import Methods
from shared.checkpoints import get_checkpoint
from shared.contract import parse_request
from shared.errors import CheckpointMissing, DeviceUnavailable
from shared.prices import Machine, gpu_of
from shared.settings import Snapshot, settings

if TYPE_CHECKING:
    from shared.engine.loading import Model


class Worker(Methods):
    """Draws with one checkpoint, on a machine that was given a GPU or not.

    torch, diffusers and transformers are imported by `load`.
    """

    def __init__(
        self, checkpoint: str, machine: Machine, *, has_gpu: bool, snapshot: Snapshot
    ) -> None:
        given = {"device": "cuda"} if has_gpu else {}
        self._acceleration = settings().acceleration.model_copy(update=given)
        self._engine = LocalBackend(self._acceleration, previews=True)
        super().__init__(self._engine, checkpoint, machine)
        self._has_gpu = has_gpu
        self._gpu_comes_later = snapshot == "cpu" and has_gpu
        self._model: Model | None = None

    def load(self) -> None:
        """The first phase: read the weights; where the device is there, draw a picture with them.

        Raises `CheckpointMissing` with the command that fetches the weights, `DeviceUnavailable`
        where the GPU should be there.
        """
        with _modals_words():
            self._model = self._without_the_gpu() if self._gpu_comes_later else self._drawn_with()

    def wake(self) -> None:
        """The second phase: move to the GPU if it comes only now, and take requests.

        Raises `DeviceUnavailable` if there is none, or it does not work.
        """
        assert self._model, "load comes first"
        model, self._model = self._model, None
        if self._has_gpu:
            with _modals_words():
                model = self._on_the_gpu(model)
        self._engine.adopt(model)

    def _without_the_gpu(self) -> Model:
        from shared.engine import snapshot

        with snapshot.no_gpu_yet():
            from shared.engine import loading

            return loading.read(get_checkpoint(self._checkpoint), self._acceleration, "cuda")

    def _drawn_with(self) -> Model:
        from shared.engine import core, loading

        checkpoint = get_checkpoint(self._checkpoint)
        model = loading.load(checkpoint, self._acceleration)
        side = checkpoint.min_size
        smallest = {"prompt": "a swan", "steps": 1, "width": side, "height": side, "seed": 0}
        for _ in core.run(model, parse_request(smallest | {"checkpoint": checkpoint.name})):
            pass
        return model

    def _on_the_gpu(self, model: Model) -> Model:
        from shared.engine import acceleration, loading, snapshot

        device = acceleration.choose_device(self._acceleration.device)
        if self._gpu_comes_later:
            snapshot.gpu_is_here()
            model = loading.place(model, device, self._acceleration)
        else:
            acceleration.check_device(device)  # one that worked before a snapshot may not now
        gpu = gpu_of(acceleration.device_name(device), acceleration.total_memory(device))
        self.machine = dataclasses.replace(self.machine, gpu=gpu)
        return model


@contextlib.contextmanager
def _modals_words() -> Iterator[None]:
    """What to do about an error of the engine, where the engine runs on Modal."""
    try:
        yield
    except CheckpointMissing as error:
        error.next_step = "Fetch its files once: modal run modal_app.py::download_weights"
        raise
    except DeviceUnavailable as error:
        asked = " or ".join(settings().modal_gpu)
        error.message = (
            f"This machine should have a GPU ({asked}), and has none that works. {error.message}"
        )
        error.next_step = (
            "Send it again, for another machine; if that has none either, deploy again with "
            "another CYGNET_MODAL_GPU, or with CYGNET_MODAL_SNAPSHOT=none."
        )
        raise
