"""Which backends there are: the file, the environment, and what is wrong in them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from shared.backends import find_backend, open_backend
from shared.backends.child import IDLE_SECONDS
from shared.backends.config import ADDRESS_VARIABLES, KEY_VARIABLES, Backends, Limits, read_backends
from shared.backends.router import FRESH_SECONDS, STATUS_SECONDS
from shared.checkpoints import ON_A_GPU
from shared.errors import InvalidSetting, UnknownBackend
from shared.settings import config_file, settings

PAGE = (Path(__file__).parents[2] / "docs/backends.md").read_text()
FILE = """
auto = ["studio", "local"]

[backends.studio]
kind = "api"
address = "https://studio.example"
key_variable = "STUDIO_KEY"
checkpoint = "wan2.1-1.3b-fast"
price = 0.002

[backends.gpu]
kind = "modal"

[limits]
per_day = 1.5
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of backends of this user, which does not exist yet."""
    path = tmp_path / "backends.toml"
    monkeypatch.setenv("CYGNET_CONFIG", str(path))
    return path


def read(file: Path, text: str) -> Backends:
    file.write_text(text)
    return read_backends()


def refusal(file: Path, text: str) -> str:
    with pytest.raises(InvalidSetting) as refused:
        read(file, text)
    assert str(file) in refused.value.message
    return str(refused.value)


def test_without_a_file_and_an_environment_there_is_this_machine() -> None:
    backends = read_backends()
    assert (backends.listed, backends.auto) == (("local",), ("local",))
    assert backends.limits == Limits()
    assert set(backends.known) == {"local", "api", "modal", "space", "fake"}


def test_the_file_lies_where_the_platform_keeps_settings() -> None:
    assert config_file().parts[-2:] == ("cygnet", "backends.toml")


def test_a_file_in_the_home_folder_needs_no_shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("CYGNET_CONFIG", "~/mine.toml")
    assert config_file() == tmp_path / "mine.toml"


def test_an_address_in_the_environment_makes_a_backend_that_is_tried_before_this_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CYGNET_API_URL", "http://swan.example")
    monkeypatch.setenv("CYGNET_API_KEY", "one-key, another")
    monkeypatch.setenv("CYGNET_SPACE", "owner/name")
    backends = read_backends()
    assert backends.auto == ("api", "space", "local")
    api, space = backends.find("api"), backends.find("space")
    assert (api.address, api.key) == ("http://swan.example", "one-key")
    assert (space.address, space.key) == ("owner/name", "")


def test_the_file_adds_backends_and_gives_the_order(file: Path) -> None:
    backends = read(file, FILE)
    studio = backends.find("studio")
    assert (studio.kind, studio.address, studio.price) == ("api", "https://studio.example", 0.002)
    assert backends.auto == ("studio", "local")
    assert backends.listed == ("studio", "local", "gpu")
    assert backends.limits == Limits(per_day=1.5)
    assert backends.default_checkpoint("studio") == "wan2.1-1.3b-fast"
    assert backends.default_checkpoint("auto") == "cygnet-tiny"


def test_a_deployment_is_asked_for_its_own_default(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = '[backends.gpu]\nkind = "modal"\ncheckpoint = "wan2.1-14b"'
    assert read(file, gpu).default_checkpoint("modal") == ON_A_GPU
    monkeypatch.setenv("CYGNET_CHECKPOINT", "cygnet-tiny-fast")
    settings.cache_clear()
    backends = read(file, gpu)
    assert backends.default_checkpoint("modal") == "cygnet-tiny-fast"
    assert backends.default_checkpoint("gpu") == "wan2.1-14b"


def test_without_an_order_auto_tries_those_of_the_file_first_and_this_machine_last(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CYGNET_API_URL", "http://swan.example")
    backends = read(file, '[backends.b]\nkind = "fake"\n[backends.a]\nkind = "fake"')
    assert backends.auto == ("b", "a", "api", "local")


def test_a_backend_without_an_address_has_that_of_its_kind(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CYGNET_MODAL_URL", "https://swan.modal.example")
    monkeypatch.setenv("CYGNET_MODAL_KEY", "a-key")
    gpu = read(file, FILE).find("gpu")
    assert (gpu.address, gpu.key) == ("https://swan.modal.example", "a-key")


def test_a_key_of_the_environment_is_not_sent_to_an_address_of_the_file(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CYGNET_API_KEY", "a-key")
    assert read(file, '[backends.b]\nkind = "api"\naddress = "http://b"').find("b").key == ""


def test_a_key_that_is_named_but_not_set_is_said(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    studio = read(file, FILE).find("studio")
    with pytest.raises(InvalidSetting, match="STUDIO_KEY"):
        open_backend(studio)
    monkeypatch.setenv("STUDIO_KEY", "a-key")
    assert studio.key == "a-key"
    assert "a-key" not in repr(studio)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("auto = [\n3x]", "line 2"),
        ('[backends.b]\nkind = "api"\nkind = "api"\n', "line 3"),
        ('[backends.b]\nkind = "ftp"', "backends.b.kind"),
        ("[backends.b]", "backends.b.kind is missing"),
        ('[backends.b]\nkind = "api"\nadress = "http://b"', "backends.b.adress"),
        ('[backends.b]\nkind = "api"\nprice = -1', "backends.b.price"),
        ('[backends.b]\nkind = "api"\nprice = nan', "backends.b.price"),
        ('[backends.b]\nkind = "fake"\naddress = "http://b"', "no address"),
        ('[backends.B]\nkind = "fake"', "small letters"),
        ('[backends.auto]\nkind = "fake"', "auto is the name"),
        ('[backends.local]\nkind = "api"', "backends.local"),
        ('[backends.b]\nkind = "fake"\nname = "c"', "backends.b.name"),
        ('auto = ["nowhere"]', "nowhere"),
        ("backends = 3", "backends"),
        ("[backends]\nb = 3", "backends.b"),
        ("[limits]\nper_week = 3", "limits.per_week"),
        ("[limits]\ncalls_per_day = 1.5", "limits.calls_per_day"),
        ('[backends.b]\nkind = "api"\naddress = "ftp://b"', "its address"),
        ('[backends.b]\nkind = "space"\naddress = "name"', "its address"),
    ],
)
def test_what_is_wrong_is_named_with_the_file_and_the_place(
    file: Path, text: str, says: str
) -> None:
    assert says in refusal(file, text)


@pytest.mark.parametrize(
    "line",
    [
        'key = "sk-secret"',
        'API_KEY = "sk-secret"',
        'token = "sk-secret"',
        'key_variable = "sk-secret"',
        'address = "https://user:sk-secret@b.example"',
    ],
)
def test_a_key_in_the_file_is_refused_and_not_repeated(file: Path, line: str) -> None:
    said = refusal(file, f'[backends.b]\nkind = "api"\n{line}')
    assert "sk-secret" not in said
    assert "key" in said or "password" in said


def test_a_file_that_is_named_and_missing_or_unreadable_is_said(file: Path) -> None:
    with pytest.raises(InvalidSetting, match="does not exist"):
        read_backends()
    file.mkdir()
    with pytest.raises(InvalidSetting, match="directory"):
        read_backends()


def test_a_file_that_is_no_text_is_said(file: Path) -> None:
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidSetting, match=r"backends\.toml: "):
        read_backends()


def test_a_name_that_nobody_has_is_refused_with_those_there_are(file: Path) -> None:
    file.write_text(FILE)
    with pytest.raises(UnknownBackend, match="studio") as refused:
        find_backend("cloud")
    assert "auto" in refused.value.next_step


def test_a_backend_without_any_address_is_refused_when_it_is_opened() -> None:
    with pytest.raises(InvalidSetting, match="CYGNET_API_URL is not set"):
        find_backend("api")()


def test_the_settings_name_the_default_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CYGNET_BACKEND", "auto")
    settings.cache_clear()
    assert settings().backend == "auto"


def test_the_example_of_the_page_is_what_it_says(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STUDIO_KEY", "a-key")
    monkeypatch.setenv("CYGNET_MODAL_URL", "https://swan.modal.example")
    [example] = re.findall(r"^```toml\n(.*?)^```$", PAGE, flags=re.M | re.S)
    backends = read(file, example)
    assert backends.auto == ("studio", "gpu", "local")
    assert backends.listed == ("studio", "gpu", "local", "friends")
    assert backends.find("studio").key == "a-key"
    assert backends.find("gpu").address == "https://swan.modal.example"
    assert backends.find("friends").address == "a-friend/cygnet"
    assert backends.default_checkpoint("studio") == "wan2.1-1.3b-fast"
    assert backends.limits == Limits(per_image=0.01, per_day=1.0, calls_per_day=500)


def test_the_page_names_the_variables_of_each_kind() -> None:
    for kind, variable in ADDRESS_VARIABLES.items():
        row = next(line for line in PAGE.splitlines() if line.startswith(f"| `{kind}`"))
        assert variable in row and KEY_VARIABLES[kind] in row


def test_the_page_has_the_numbers_of_the_code() -> None:
    assert f"for {FRESH_SECONDS:g} seconds and waited for at most {STATUS_SECONDS:g}" in PAGE
    assert IDLE_SECONDS == 5 * 60 and "five idle minutes" in PAGE
