"""The app as Modal is told about it."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from shared.checkpoints import CHECKPOINTS, get_checkpoint
from shared.errors import InvalidRequest
from shared.prices import GPU_SECOND
from shared.settings import VARIABLES, read_settings
from tests.modal.conftest import Deploy
from tests.modal.stand_in import LOCAL_MODAL, environment, python_with, required

ROOT = Path(__file__).parents[2]
CHOSEN = {"checkpoint", "modal_gpu", "modal_snapshot", "acceleration"}
INSTALL = 'pip install --constraint constraints.txt ".[modal]"'


def test_the_default_is_a_real_wan_in_few_steps_on_a_gpu(deploy: Deploy) -> None:
    app = deploy()
    checkpoint = get_checkpoint(app.CHECKPOINT)
    assert checkpoint.repository and checkpoint.revision
    assert checkpoint.steps <= 4 and checkpoint.licence.name == "Apache-2.0"
    options = app.GENERATOR
    assert options["gpu"] == ["L40S", "A100-80GB"]
    assert set(options["gpu"]) <= GPU_SECOND.keys()
    assert options["enable_memory_snapshot"] is True
    assert options["experimental_options"] == {}
    assert list(options["volumes"]) == [app.HUB_CACHE]
    assert options["env"] == {"HF_HUB_OFFLINE": "1"}
    assert options["min_containers"] == options["buffer_containers"] == 0
    assert 2 <= options["scaledown_window"] <= 3600
    assert options["memory"] > checkpoint.memory_gib * 1024
    assert options["retries"]
    assert app.WEB["secrets"] == [app.api_key]
    assert "gpu" not in app.WEB


@pytest.mark.parametrize(
    ("snapshot", "enabled", "experimental"),
    [("none", False, {}), ("cpu", True, {}), ("gpu", True, {"enable_gpu_snapshot": True})],
)
def test_one_setting_chooses_the_snapshot(
    deploy: Deploy, snapshot: str, enabled: bool, experimental: dict[str, bool]
) -> None:
    options = deploy(CYGNET_MODAL_SNAPSHOT=snapshot).GENERATOR
    assert options["enable_memory_snapshot"] is enabled
    assert options["experimental_options"] == experimental


def test_one_setting_chooses_the_gpu(deploy: Deploy) -> None:
    assert deploy(CYGNET_MODAL_GPU="H100, L4").GENERATOR["gpu"] == ["H100", "L4"]


def test_the_setting_may_ask_for_no_gpu_and_the_containers_know(deploy: Deploy) -> None:
    app = deploy(CYGNET_MODAL_GPU="none")
    assert app.GENERATOR["gpu"] is None
    assert read_settings({"CYGNET_MODAL_GPU": app.GPU_NAMES}).modal_gpu == ()


@pytest.mark.parametrize("name", [one.name for one in CHECKPOINTS if one.folder])
def test_what_ships_with_cygnet_asks_for_no_gpu(deploy: Deploy, name: str) -> None:
    assert deploy(CYGNET_CHECKPOINT=name).GENERATOR["gpu"] is None


def inspect(tmp_path: Path, **chosen: str) -> dict[str, Any]:
    """What the platform is told, by function."""
    ran = subprocess.run(
        [*LOCAL_MODAL, "inspect", ROOT / "modal_app.py"],
        env=environment(**chosen),
        capture_output=True,
        text=True,
        timeout=120,
        cwd=tmp_path,  # from anywhere: no path of the app is relative
    )
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)["functions"]


def test_the_platform_is_told_the_whole_definition(tmp_path: Path) -> None:
    functions = inspect(tmp_path)
    generator, web = functions["Generator.*"], functions["web"]
    download = functions["download_weights"]
    assert functions.keys() == {"Generator.*", "web", "download_weights"}

    assert generator["methods"] == ["run", "run_job", "stream"]
    assert generator["gpu"] == ["L40S", "A100-80GB"]
    assert generator["enable_memory_snapshot"] and generator["experimental_options"] == {}
    assert (generator["max_concurrent_inputs"], generator["target_concurrent_inputs"]) == (8, 4)
    assert generator["retries"]["retries"] == 2
    assert generator["autoscaler"]["scaledown_window"] == 60
    cache = {"name": "cygnet-weights", "read_only": False, "sub_path": ""}
    for one in (generator, download):
        assert one["volumes"] == {one["image"]["env"]["HF_HUB_CACHE"]: cache}
    assert [secret["keys"] for secret in generator["secrets"]] == [["HF_HUB_OFFLINE"]]
    assert not download["gpu"] and not download["secrets"]

    assert not web["gpu"] and not web["volumes"] and web["max_concurrent_inputs"] == 100
    assert [(one["name"], one["required_keys"]) for one in web["secrets"]] == [
        ("cygnet", ["CYGNET_API_KEY"])
    ]
    endpoints = [endpoint for one in functions.values() for endpoint in one["web"].values()]
    assert [(one["type"], one["label"]) for one in endpoints] == [("asgi_app", "cygnet")]


def test_every_container_gets_the_sources_and_the_settings(tmp_path: Path) -> None:
    chosen = {
        "CYGNET_CHECKPOINT": "cygnet-tiny-fast",
        "CYGNET_MODAL_GPU": "H100,L4",
        "CYGNET_MODAL_SNAPSHOT": "none",
        "CYGNET_DTYPE": "float32",
        "CYGNET_QUANTISATION": "int8",
        "CYGNET_ATTENTION": "native",
        "CYGNET_COMPILE": "True",
    }
    functions = inspect(tmp_path, **chosen, CYGNET_DEVICE="cpu")
    sources = {
        f"/root/{path.relative_to(ROOT)}"
        for path in (ROOT / "shared").rglob("*.py")
        if "__pycache__" not in path.parts
    }
    weights = {f"/root/{path.relative_to(ROOT)}" for path in (ROOT / "shared/weights").rglob("*.*")}
    for name, function in functions.items():
        mounted = set(function["mounted_files"])
        assert sources | {"/root/modal_app.py"} <= mounted, name
        assert (weights <= mounted) == (name != "web")
        inside = function["image"]["env"]
        assert {variable: inside[variable] for variable in chosen} == chosen
        read = read_settings(inside)
        assert read.checkpoint == "cygnet-tiny-fast"
        assert (read.modal_gpu, read.modal_snapshot) == (("H100", "L4"), "none")
        told = read.acceleration.model_dump()
        assert list(told.values()) == ["auto", "float32", "int8", "native", True]
        assert ("torchao" in function["image"]["pip_packages"]) == (name != "web")


def test_the_images_hold_the_tested_versions_of_what_the_project_asks_for(tmp_path: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    functions = inspect(tmp_path)
    for name, extra in (("Generator.*", "local"), ("download_weights", "local"), ("web", "serve")):
        image = functions[name]["image"]
        assert sorted(image["pip_packages"]) == sorted(project["dependencies"] + extras[extra])
        [install] = [line for line in image["commands"] if "pip install" in line and "FROM" not in line
                     and extras[extra][0].split(">")[0] in line]  # fmt: skip
        assert "--constraint /cygnet/constraints.txt" in install
    assert "/cygnet/constraints.txt" in functions["web"]["mounted_files"]


def test_the_commands_of_the_page_are_there(deploy: Deploy) -> None:
    app = deploy()
    page = (ROOT / "docs/modal.md").read_text()
    told = app.__doc__ or ""
    named = re.findall(r"modal_app\.py::(\w+)", page + told)
    assert set(named) == {"download_weights", "batch"}
    assert all(hasattr(app, name) for name in named)
    assert app.batch is app.main  # or `modal run modal_app.py` would ask which of the two
    assert app.MAKE_A_KEY in page and app.MAKE_A_KEY in told
    for option in ("--prompt", "--prompts-file", "--out"):
        assert option in page and option in told


@pytest.mark.parametrize(
    ("entry", "command"),
    [
        ("draw_one", "modal run modal_app.py -- --help"),
        ("draw_many", "modal run modal_app.py::batch -- --help"),
    ],
)
def test_a_mistake_in_the_options_names_the_help_that_is_ours_and_not_modals(
    deploy: Deploy, entry: str, command: str
) -> None:
    with pytest.raises(InvalidRequest, match="required") as refused:
        getattr(deploy(), entry)([])
    assert refused.value.next_step == f"See {command}."


def test_the_app_needs_nothing_that_the_extra_does_not_install(tmp_path: Path) -> None:
    python = python_with(tmp_path, required("cygnet", {"modal"}))
    code = "import modal_app, importlib.util as u; assert not u.find_spec('torch')"
    subprocess.run([python, "-c", code], cwd=ROOT, check=True, timeout=60)


def test_the_workflow_deploys_on_a_tag_and_nothing_else() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/deploy-modal.yml").read_text())
    assert workflow[True] == {"push": {"tags": ["v*"]}, "workflow_dispatch": None}
    assert workflow["permissions"] == {"contents": "read"}
    steps = workflow["jobs"]["deploy"]["steps"]
    for step in steps:
        assert re.search(r"@[0-9a-f]{40}$", step.get("uses", "@" + "0" * 40))
    assert INSTALL in [step.get("run") for step in steps]
    assert INSTALL in (ROOT / "docs/modal.md").read_text()
    assert "modal deploy modal_app.py" in steps[-1]["run"]
    choices = {name for name, path in VARIABLES.items() if path[0] in CHOSEN} - {"CYGNET_DEVICE"}
    assert steps[-1]["env"].keys() == {"MODAL_TOKEN_ID", "MODAL_TOKEN_SECRET"} | choices
