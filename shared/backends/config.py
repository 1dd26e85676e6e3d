"""Which backends there are: a small TOML file, and environment variables for the usual names.

A key never lies in the file: the file names the environment variable that holds it. This module does
not know how a backend is opened, nor whether it answers.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails, PydanticCustomError

from shared.checkpoints import ON_A_GPU
from shared.errors import InvalidSetting, UnknownBackend, reason
from shared.numbers import READ_NUMBER
from shared.settings import config_file, secret, settings

Kind = Literal["local", "api", "modal", "space", "fake"]

AUTO = "auto"
"""The name that asks for the best backend there is."""

ADDRESS_VARIABLES = {"api": "CYGNET_API_URL", "modal": "CYGNET_MODAL_URL", "space": "CYGNET_SPACE"}
KEY_VARIABLES = {"api": "CYGNET_API_KEY", "modal": "CYGNET_MODAL_KEY", "space": "HF_TOKEN"}
"""Where the address and the key of a kind come from if the file gives neither."""

_URL = re.compile(r"https?://[^\s/]+(/\S*)?")
_SPACE = re.compile(rf"[\w.-]+/[\w.-]+|{_URL.pattern}")

_KEYS = {"key", "api_key", "apikey", "token", "secret", "password"}


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class BackendConfig(_Section):
    """One place where pictures are made."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,39}$")]
    kind: Kind
    address: str | None = None
    """The address of an API or of a deployment; of a Space also OWNER/NAME."""
    key_variable: Annotated[str | None, Field(pattern=r"^[A-Z][A-Z0-9_]{1,99}$")] = None
    """The environment variable that holds the key."""
    checkpoint: str | None = None
    """For requests that are sent there by name and name no checkpoint."""
    price: Annotated[float | None, Field(strict=True, ge=0), READ_NUMBER] = None
    """US dollars for a picture, as its owner reckons them."""

    @field_validator("name")
    @classmethod
    def _not_auto(cls, name: str) -> str:
        if name == AUTO:
            raise PydanticCustomError("auto", "auto is the name of the choice among all of them")
        return name

    @field_validator("address")
    @classmethod
    def _holds_no_password(cls, address: str | None) -> str | None:
        if address and "@" in address:
            raise PydanticCustomError("password", "an address holds no user and no password")
        return address

    @model_validator(mode="after")
    def _is_of_its_kind(self) -> BackendConfig:
        if self.name in get_args(Kind) and self.name != self.kind:
            raise PydanticCustomError("kind", "the name of a kind is for a backend of that kind")
        if not self.is_elsewhere and (self.address or self.key_variable):
            raise PydanticCustomError("kind", "a backend of this kind has no address and no key")
        pattern = _SPACE if self.kind == "space" else _URL
        if self.address and not pattern.fullmatch(self.address):
            raise PydanticCustomError("address", "its address is none of its kind")
        return self

    @property
    def key(self) -> str:
        """What opens the backend; empty if nothing does.

        Raises `InvalidSetting` if the variable that the file names is not set.
        """
        if not self.key_variable:
            return ""
        key = secret(self.key_variable)
        if not key and self.key_variable != KEY_VARIABLES.get(self.kind):
            raise InvalidSetting(
                f"The backend {self.name} takes its key from {self.key_variable}, which is not set.",
                f"Set {self.key_variable}, or take key_variable out of {config_file()}.",
            )
        return key

    @property
    def required_address(self) -> str:
        """The address. Raises `InvalidSetting` if there is none."""
        if self.address:
            return self.address
        variable = ADDRESS_VARIABLES[self.kind]
        raise InvalidSetting(
            f"{variable} is not set, and no address of {self.name} lies in {config_file()}.",
            f"Set {variable} to the address.",
        )

    @property
    def is_elsewhere(self) -> bool:
        """Whether it has an address, and is not this machine's own."""
        return self.kind in ADDRESS_VARIABLES

    @property
    def is_free(self) -> bool:
        """Whether calls are nobody's business: they stay on this machine, and cost nothing."""
        return not self.is_elsewhere and not self.price

    @property
    def price_usd(self) -> float | None:
        """US dollars for a picture, where known."""
        return 0.0 if self.is_free else self.price


class Limits(_Section):
    """What may be spent; None is no limit. A day is one of UTC."""

    per_image: Annotated[float | None, Field(strict=True, ge=0), READ_NUMBER] = None
    """US dollars."""
    per_day: Annotated[float | None, Field(strict=True, ge=0), READ_NUMBER] = None
    """US dollars."""
    calls_per_day: Annotated[int | None, Field(strict=True, ge=0), READ_NUMBER] = None

    @property
    def any(self) -> bool:
        return any(
            limit is not None for limit in (self.per_image, self.per_day, self.calls_per_day)
        )


class _File(_Section):
    auto: tuple[str, ...] | None = None
    backends: dict[str, BackendConfig] = {}
    limits: Limits = Limits()


@dataclass(frozen=True)
class Backends:
    """All that can be asked for by name, which of them `auto` chooses from, and what may be spent."""

    known: Mapping[str, BackendConfig]
    listed: tuple[str, ...]
    """Those that the user has: what no address leads to, and the fake, are known but not listed."""
    auto: tuple[str, ...]
    """In the user's order."""
    limits: Limits = field(default_factory=Limits)

    def find(self, name: str) -> BackendConfig:
        """Raises `UnknownBackend`."""
        if config := self.known.get(name):
            return config
        raise UnknownBackend(
            f"There is no backend named {name[:100]!r}.",
            f"Choose one of {', '.join([AUTO, *self.known])}, or add it to {config_file()}.",
        )

    def check(self, name: str) -> None:
        """Raises `UnknownBackend` if `name` is neither one of them nor `auto`."""
        if name != AUTO:
            self.find(name)

    def draws_here(self, name: str) -> bool:
        """Whether `name` is this machine's engine, which no address and no bill stands behind."""
        return name != AUTO and self.find(name).kind == "local"

    def default_checkpoint(self, name: str) -> str:
        """For a request that is sent to `name` and names no checkpoint itself."""
        if name == AUTO:
            return settings().checkpoint
        config = self.find(name)
        if config.kind == "modal":
            return config.checkpoint or settings().checkpoint_or(ON_A_GPU)
        return config.checkpoint or settings().checkpoint


def read_backends() -> Backends:
    """The backends of this user: those of the file, then those that the environment gives an address.

    `auto` takes them in that order and this machine last, unless the file has an order of its own.
    Raises `InvalidSetting`, naming the file and what is wrong in it.
    """
    file = config_file()
    told = _read(file)
    usual = [_filled(BackendConfig(name=kind, kind=kind)) for kind in get_args(Kind)]
    known = {config.name: config for config in usual} | {
        name: _filled(config) for name, config in told.backends.items()
    }
    named = {None, *(known[name].address for name in told.backends)}
    reachable = [name for name in ADDRESS_VARIABLES if known[name].address not in named]
    listed = tuple(dict.fromkeys([*told.backends, *reachable, "local"]))
    auto = listed if told.auto is None else tuple(dict.fromkeys(told.auto))
    if strangers := [name for name in auto if name not in known]:
        raise InvalidSetting(
            f"{file}: auto names {strangers[0][:100]!r}, which is no backend.",
            f"Choose from {', '.join(known)}, or add [backends.{strangers[0][:40]}].",
        )
    return Backends(known, tuple(dict.fromkeys([*auto, *listed])), auto, told.limits)


def _filled(config: BackendConfig) -> BackendConfig:
    """With the address and the key of the environment, where the file gives no address.

    An address of the file's gets only the key that the file names for it.
    """
    if config.address or not config.is_elsewhere:
        return config
    address = {"api": settings().api_url, "modal": settings().modal_url, "space": settings().space}
    return config.model_copy(
        update={
            "address": address[config.kind],
            "key_variable": config.key_variable or KEY_VARIABLES[config.kind],
        }
    )


def _read(file: Path) -> _File:
    try:
        data = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if settings().config:
            raise InvalidSetting(
                f"CYGNET_CONFIG names {file}, which does not exist.", "Correct it, or unset it."
            ) from None
        return _File()
    except OSError as error:
        raise _wrong(file, str(error.strerror), "Correct it") from error
    except ValueError as error:  # the TOML or the UTF-8; the message has the line
        raise _wrong(file, reason(error), "Correct that line") from None
    for name, section in _sections(data):
        if wrong := [setting for setting in section if setting.lower() in _KEYS]:
            raise _wrong(
                file,
                f"backends.{name}.{wrong[0]}: a key does not belong in a file",
                'Put it into an environment variable, and name that: key_variable = "MY_KEY"',
            )
        if section.setdefault("name", name) != name:
            raise _wrong(file, f"backends.{name}.name is not a setting", "Take it out")
    try:
        return _File.model_validate(data)
    except ValidationError as error:
        raise _wrong(file, *_refusal(error.errors()[0])) from None


def _sections(data: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    backends = data.get("backends")
    sections = backends.items() if isinstance(backends, dict) else ()
    return [(name, section) for name, section in sections if isinstance(section, dict)]


def _refusal(details: ErrorDetails) -> tuple[str, str]:
    """What is wrong in the file, and what to do; never the value, which may be a key."""
    place = ".".join(str(part) for part in details["loc"])
    match details["type"]:
        case "extra_forbidden":
            return f"{place[:100]} is not a setting", "Take it out"
        case "missing":
            return f"{place} is missing", "Add it"
        case "string_pattern_mismatch" if place.endswith("key_variable"):
            return (
                f"{place} is no name of an environment variable",
                'Put the key into a variable, and name that: key_variable = "MY_KEY"',
            )
        case "string_pattern_mismatch":
            return f"{place}: a name has small letters, digits, and . _ -", "Choose another name"
        case _:
            message = re.sub(r"^Input should be ", "it should be ", details["msg"])
            return f"{place}: {message}", "Correct it"


def _wrong(file: Path, what: str, advice: str) -> InvalidSetting:
    return InvalidSetting(f"{file}: {what}.", f"{advice}; docs/backends.md has an example.")
