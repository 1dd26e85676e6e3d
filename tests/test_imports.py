"""Imports run downward only, and what is light stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOORS = ("modal_app", "mcp_client_server", "space")
EXEMPT = ("training", "tests", "benchmarks", "docs")
HEAVY = {"torch", "diffusers", "transformers", "gradio"}
SERVING = {"fastapi", "starlette", "uvicorn", "httpx"}

# From the top of the house to its cellar; a module may import from its own floor and those below.
FLOORS = (
    DOORS,
    ("shared.browser", "shared.cli", "shared.serving"),
    ("shared.album", "shared.site"),
    ("shared.api", "shared.batch", "shared.mcp", "space.page"),
    (
        "shared.backends",
        "shared.console",
        "shared.gallery",
        "shared.addresses",
        "shared.mirror",
        "shared.outputs",
        "shared.resolver",
        "shared.store",
        "shared.webhooks",
    ),
    ("shared.engine",),
    ("shared.images", "shared.files", "shared.refusals"),
    ("shared.contract",),
    ("shared.checkpoints",),
    ("shared.checkpoint_folder",),
    ("shared.http_clients",),
    ("shared.packages", "shared.proxies"),
    (
        "shared.errors",
        "shared.field_names",
        "shared.formats",
        "shared.numbers",
        "shared.prices",
        "shared.settings",
        "shared",
    ),
)
ONLY_FROM = {
    "torch": ("shared.engine",),
    "diffusers": ("shared.engine",),
    "transformers": ("shared.engine",),
    "httpx": ("shared.backends", "shared.http_clients", "shared.webhooks"),
    "httpx2": ("shared.http_clients",),
    "huggingface_hub": ("shared.console", "shared.engine", "shared.http_clients", "shared.mirror"),
    "gradio": ("space",),
    "modal": ("modal_app", "shared.backends"),
    "fastapi": ("shared.api", "shared.serving", "shared.site", "space"),
    "starlette": ("shared.api", "shared.mcp", "space"),
    "uvicorn": ("shared.api",),
    "mcp": ("mcp_client_server", "shared.mcp"),
}


def modules() -> Iterator[tuple[str, Path]]:
    """Every module of the house, under the name that imports it."""
    files = [ROOT / f"{door}.py" for door in DOORS]
    files += [*ROOT.glob("space/**/*.py"), *ROOT.glob("shared/**/*.py")]
    for file in sorted(filter(Path.is_file, files)):
        parts = file.relative_to(ROOT).with_suffix("").parts
        yield ".".join(parts).removesuffix(".__init__"), file


MODULES = dict(modules())


def imports(module: str) -> Iterator[str]:
    """What the module imports, anywhere in it; `from a import b` as `a` and as `a.b`."""
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} has a relative import"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def floor(module: str) -> int:
    """The floor with the longest name that the module is within."""
    matches = [
        (len(package), number)
        for number, packages in enumerate(FLOORS)
        for package in packages
        if within(module, package) and (package != "shared" or module == "shared")
    ]
    assert matches, f"{module} lives on no floor: add it to FLOORS"
    return max(matches)[1]


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_from_its_own_floor_and_below(module: str) -> None:
    for name in imports(module):
        inside = name in MODULES and name != "shared"
        assert not inside or floor(module) <= floor(name), f"{module} imports {name}"


@pytest.mark.parametrize("module", MODULES)
def test_doors_do_not_import_each_other(module: str) -> None:
    own = [door for door in DOORS if within(module, door)]
    if own:
        others = [door for door in DOORS if door not in own]
        assert not [name for name in imports(module) if any(within(name, o) for o in others)]


@pytest.mark.parametrize("module", MODULES)
def test_a_large_package_is_imported_in_its_own_folder_only(module: str) -> None:
    for name in imports(module):
        homes = ONLY_FROM.get(name.split(".")[0])
        assert homes is None or any(within(module, home) for home in homes), (
            f"{module} imports {name}"
        )


@pytest.mark.parametrize("module", MODULES)
def test_the_product_does_not_import_what_stands_around_it(module: str) -> None:
    assert not {name.split(".")[0] for name in imports(module)} & set(EXEMPT)


LIGHT = [
    "import shared.cli",
    "import shared.contract, shared.images, shared.backends, shared.backends.fake",
    "from shared.backends.local import LocalBackend; LocalBackend()",
    "from shared.cli import main; main(['checkpoints'])",
    "import shared.mirror.check, shared.mirror.hub",
    "import contextlib, shared.cli\nwith contextlib.suppress(SystemExit): shared.cli.main(['--help'])",
    "from shared.cli import main\nmain(['mcp', '--port', 'x'])",
    *(f"import {door}" for door in DOORS[:2] if door in MODULES),
]


@pytest.mark.parametrize("code", LIGHT)
def test_what_wakes_no_gpu_loads_no_framework(code: str) -> None:
    program = f"{code}\nimport sys; print(*sys.modules, file=sys.stderr)"
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True
    )
    loaded = set(ran.stderr.split())
    assert "shared" in loaded or "mcp_client_server" in loaded or "modal_app" in loaded
    assert not loaded & (HEAVY | SERVING)


def test_the_house_was_found() -> None:
    assert {"shared", "shared.cli", "shared.contract", "shared.backends.fake"} <= MODULES.keys()
