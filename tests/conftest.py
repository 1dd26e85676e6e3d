"""What every test gets: no settings from outside, a folder of its own, and a backend that is fake."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import hypothesis
import pytest

from shared.backends import Backend
from shared.backends.config import KEY_VARIABLES, read_backends
from shared.backends.fake import FakeBackend
from shared.cli import batch, generate
from shared.contract import Event
from shared.settings import VARIABLES, settings
from tests.chromium import left_out

# Before anything imports torch, and for every process that a test starts: models this small run faster
# on one core, and sums that are made in one order round alike, so that pictures are equal.
os.environ["OMP_NUM_THREADS"] = "1"

# A busy machine makes examples slow, not wrong; the same examples each time make a failure repeat.
hypothesis.settings.register_profile("cygnet", deadline=None, derandomize=True, max_examples=50)
hypothesis.settings.load_profile("cygnet")


_skipped: list[pytest.TestReport] = []


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.skipped:
        _skipped.append(report)


def pytest_unconfigure() -> None:
    """The last line of all."""
    if said := left_out(_skipped):
        print(said)


@pytest.fixture(autouse=True)
def no_settings_from_outside(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    home = tmp_path_factory.mktemp("home")
    for variable in (*VARIABLES, *KEY_VARIABLES.values()):
        monkeypatch.delenv(variable, raising=False)
    for variable in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(variable)
    for folder in ("XDG_CONFIG_HOME", "XDG_DATA_HOME"):  # the user's own backends and pictures
        monkeypatch.setenv(folder, str(home / folder))
    settings.cache_clear()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that is the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def use_fake(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Puts a fake in place of the command line's backends; hands on `before_event`."""

    def use(before_event: Callable[[Event], None] | None = None) -> None:
        def find(name: str, **_: object) -> Callable[[], Backend]:
            read_backends().check(name)
            return lambda: FakeBackend(before_event)

        for command in (generate, batch):
            monkeypatch.setattr(command, "find_backend", find)

    return use
