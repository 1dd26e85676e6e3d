"""Compiling ahead of time, by torch's own compiler, behind a stand-in for the package `spaces`."""

from __future__ import annotations

import dataclasses
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._inductor

from shared import checkpoints
from shared.checkpoints import add_folder
from shared.contract import GenerationRequest, parse_request
from shared.engine.export import export_block, forwards, padded
from shared.engine.loading import Model, load
from shared.errors import UnsupportedSetting
from shared.settings import Acceleration
from space.ahead import compile_ahead
from tests.engine import small_wan
from tests.engine.conftest import psnr, solo

WITHOUT_WEIGHTS = {
    "aot_inductor.package_constants_in_so": False,
    "aot_inductor.precompile_headers": False,  # they would be compiled for this one use
    "always_keep_tensor_constants": True,
}


class Spaces:
    """What `spaces` 0.51.3 does, as far as it shows: one package in a file, and weights by block."""

    def __init__(self) -> None:
        self.taken: list[int] = []
        self.calls = 0

    def GPU(self, duration: int = 60) -> Callable[[Callable[[], None]], Callable[[], None]]:
        def decorate(task: Callable[[], None]) -> Callable[[], None]:
            def handler() -> None:
                self.taken.append(duration)
                return pickle.loads(pickle.dumps(task()))

            return handler

        return decorate

    def aoti_compile_and_save(
        self, package_dir: str, exported_program: torch.export.ExportedProgram, submodule: str
    ) -> None:
        torch._inductor.aoti_compile_and_package(
            exported_program,
            package_path=str(Path(package_dir, f"{submodule}.pt2")),
            inductor_configs=WITHOUT_WEIGHTS,
        )

    def aoti_load_from_package_dir(self, module: torch.nn.Module, package_dir: str) -> None:
        for file in Path(package_dir).iterdir():
            package = torch._inductor.aoti_load_package(str(file))
            for block in module.get_submodule(file.stem).children():
                vars(block)["forward"] = self._with_weights(package, block.state_dict())

    def _with_weights(self, package: Any, weights: dict[str, torch.Tensor]) -> Callable[..., Any]:
        def forward(*arguments: Any) -> Any:
            self.calls += 1
            named = {name: weights[name] for name in package.get_constant_fqns()}
            package.load_constants(named, check_full_update=True, user_managed=True)
            return package(*arguments)

        return forward


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Whoever makes it known does so for this module alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoints, "_registry", dict(checkpoints._registry))
        yield small_wan.save(tmp_path_factory.mktemp("checkpoints") / "wan-to-compile")


def with_recipe(folder: Path, guidance_scale: float) -> Model:
    """A small Wan whose default is a small picture."""
    model = load(add_folder(folder), Acceleration(device="cpu"))
    recipe = {"width": 64, "height": 48, "guidance_scale": guidance_scale}
    return dataclasses.replace(model, checkpoint=model.checkpoint.model_copy(update=recipe))


def ask(model: Model, **fields: Any) -> GenerationRequest:
    recipe = model.checkpoint
    request = {"prompt": "a fox", "checkpoint": recipe.name, "seed": 7, "steps": 2}
    size = {"width": recipe.width, "height": recipe.height, "guidance_scale": recipe.guidance_scale}
    return parse_request(request | size | fields)


@pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is deprecated:FutureWarning")
def test_blocks_compiled_ahead_draw_the_same_pictures_and_leave_other_shapes_alone(
    folder: Path,
) -> None:
    spaces, model, expected = Spaces(), with_recipe(folder, 5.0), with_recipe(folder, 5.0)
    compile_ahead(model, spaces)
    assert spaces.taken == [1500, 60]
    each = len(forwards(model))
    fitting: list[dict[str, Any]] = [
        {"prompt": word * count} for word, count in (("a", 1), ("fox ", 9), ("b c ", 300))
    ]
    fitting.append({"width": 48, "height": 64})  # as many tokens, and rotary angles are arguments
    for fields in fitting:
        spaces.calls = 0
        (picture,) = solo(model, ask(model, **fields))
        assert psnr(picture, solo(expected, ask(model, **fields))[0]) >= 60
        assert spaces.calls == 2 * each
    spaces.calls = 0
    for fields in ({"width": 96}, {"guidance_scale": 1.0}, {"num_images": 2}):
        pictures = zip(
            solo(model, ask(model, **fields)), solo(expected, ask(model, **fields)), strict=True
        )
        assert all(psnr(one, another) == float("inf") for one, another in pictures)
    assert spaces.calls == 0


def test_without_guidance_one_row_is_exported_for_texts_of_any_length(folder: Path) -> None:
    model = with_recipe(folder, 1.0)
    transformer, program = model.transformer, export_block(model).module()
    width = transformer.config["num_attention_heads"] * transformer.config["attention_head_dim"]
    rotary = transformer.rope(torch.zeros(1, model.latent_channels, 1, 6, 8))
    hidden, modulation = torch.randn(1, 12, width), torch.randn(1, 6, width)
    for length in (2, 8, 9, 33, 513):
        keys, values = torch.randn(2, 1, length, width)
        text = (keys, values, torch.randn(1, 1, 1, length))
        expected = transformer.blocks[0](hidden, text, modulation, rotary)
        actual = program(hidden, padded(text), modulation, rotary)
        torch.testing.assert_close(actual, expected)


def test_what_cannot_be_compiled_stops_the_space_with_a_next_step(folder: Path) -> None:
    class Refusing(Spaces):
        def aoti_compile_and_save(self, *_: Any, **__: Any) -> None:
            raise RuntimeError("no compiler\nand much more")

    with pytest.raises(UnsupportedSetting, match=r"no compiler\. Unset CYGNET_COMPILE\."):
        compile_ahead(with_recipe(folder, 1.0), Refusing())
