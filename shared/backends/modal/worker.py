"""The engine of one machine on Modal: loaded in two phases, around a snapshot of its memory.

What the first phase leaves in memory may be restored in many machines, on another day. So it draws no
random number that a picture could depend on: seeds come with the requests, or from the system when
a request is read. And if the snapshot is taken without a GPU, the first phase may not look for one:
torch would remember that there is none.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from shared.backends.local import LocalBackend
from shared.backends.modal.methods import Methods
from shared.checkpoints import get_checkpoint
from shared.contract import parse_request
from shared.errors import CheckpointMissing
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
        self._acceleration = settings().acceleration
        self._engine = LocalBackend(self._acceleration, previews=True)
        super().__init__(self._engine, checkpoint, machine)
        self._gpu_comes_later = snapshot == "cpu" and has_gpu
        self._model: Model | None = None

    def load(self) -> None:
        """The first phase: read the weights; where the device is there, draw a picture with them.

        Raises `CheckpointMissing` with the command that fetches the weights.
        """
        from shared.engine import core, loading

        checkpoint = get_checkpoint(self._checkpoint)
        try:
            if self._gpu_comes_later:
                self._model = loading.read(checkpoint, self._acceleration, "cuda")
                return
            self._model = loading.load(checkpoint, self._acceleration)
        except CheckpointMissing as error:
            error.next_step = "Fetch its files once: modal run modal_app.py::download_weights"
            raise
        side = checkpoint.min_size
        smallest = {"prompt": "a swan", "steps": 1, "width": side, "height": side, "seed": 0}
        for _ in core.run(self._model, parse_request(smallest | {"checkpoint": checkpoint.name})):
            pass

    def wake(self) -> None:
        """The second phase: move to the GPU if it comes only now, and take requests."""
        from shared.engine import loading
        from shared.engine.acceleration import choose_device, device_name, total_memory

        assert self._model, "load comes first"
        model, self._model = self._model, None
        if self._gpu_comes_later:
            device = choose_device(self._acceleration.device)
            model = loading.place(model, device, self._acceleration)
        if model.device.type == "cuda":
            gpu = gpu_of(device_name(model.device), total_memory(model.device))
            self.machine = dataclasses.replace(self.machine, gpu=gpu)
        self._engine.adopt(model)
