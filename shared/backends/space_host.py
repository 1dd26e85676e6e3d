"""Where a Space is, and what the Hub says of it: asleep, being built, broken. Neither wakes it."""

from __future__ import annotations

from dataclasses import dataclass

import httpx

from shared import http_clients
from shared.backends.space_messages import MAX_SAID
from shared.contract import clean_text
from shared.errors import BackendUnavailable, CygnetError, NotFound, Unauthorised, error_of

_RUNNING = {"RUNNING", "RUNNING_BUILDING", "RUNNING_APP_STARTING"}
_STARTING = {"SLEEPING", "STOPPED", "BUILDING", "APP_STARTING", "RESTARTING"}
_BROKEN = {"NO_APP_FILE", "CONFIG_ERROR", "BUILD_ERROR", "RUNTIME_ERROR", "DELETING"}

MAX_BODY = 16 * 2**20
"""Bytes of what a Space says at once: the description of a large page has a few hundred thousand."""


@dataclass(frozen=True)
class Stage:
    """What the Hub calls a Space's state. New names come up, so that an unknown one is nothing bad."""

    name: str

    @property
    def running(self) -> bool:
        return self.name in _RUNNING

    @property
    def starting(self) -> bool:
        """Whether it will run by itself, woken by the call that found it asleep."""
        return self.name in _STARTING

    @property
    def down(self) -> bool:
        """Whether it takes a person to get it running."""
        return self.name == "PAUSED" or self.name in _BROKEN

    def __str__(self) -> str:
        return f"The Space is {self.name.lower().replace('_', ' ')}."

    def error(self) -> BackendUnavailable:
        if self.name == "PAUSED":
            return BackendUnavailable(str(self), "Its owner can restart it in its settings.")
        return BackendUnavailable(str(self), "Its log on the Hub says why; its owner can read it.")


class SpaceHost:
    """One Space, given as OWNER/NAME, as its page on the Hub, or as the address of its server."""

    def __init__(self, space: str, hub: str, client: httpx.AsyncClient) -> None:
        self._hub = hub
        self._client = client
        page = f"{hub}/spaces/"
        name = space.removeprefix(page).strip("/")
        self.name = name if space.startswith(page) or "://" not in space else ""
        self._address = "" if self.name else space.rstrip("/")

    @property
    def is_the_hubs(self) -> bool:
        """Whether a token of the Hub may go there: it is read by nobody on the way."""
        return bool(self.name) or (self.may_sleep and self._address.startswith("https:"))

    @property
    def may_sleep(self) -> bool:
        """Whether a call to its address, as far as that is known, may wake it."""
        return httpx.URL(self._address).host.endswith(".hf.space")

    async def address(self) -> str:
        """Raises `NotFound`, `Unauthorised` or `BackendUnavailable`."""
        if not self._address:
            try:
                answer = await self._client.get(f"{self._hub}/api/spaces/{self.name}/host")
                if answer.is_success:
                    self._address = str(answer.json()["host"]).rstrip("/")
                    return self._address
            except httpx.RequestError as error:
                raise BackendUnavailable(
                    f"The Hub cannot be reached ({http_clients.spoken(error)}).",
                    "Check the connection.",
                ) from error
            except (ValueError, KeyError, TypeError) as error:
                raise BackendUnavailable(
                    "The Hub does not say where the Space is.", "Check HF_ENDPOINT."
                ) from error
            raise no_entry(answer, self.name)
        return self._address

    async def stage(self) -> Stage | None:
        """None where the Hub does not say."""
        if not self.name:
            return None
        try:
            answer = await self._client.get(f"{self._hub}/api/spaces/{self.name}/runtime")
            return Stage(str(answer.json()["stage"])[:40]) if answer.is_success else None
        except (httpx.RequestError, ValueError, KeyError, TypeError):
            return None


class TooLarge(httpx.RequestError):
    """An answer is larger than anything that a Space has to say."""


async def whole(answer: httpx.Response) -> httpx.Response:
    """An answer whose body is still to be read, with that body. Raises `TooLarge`."""
    body = bytearray()
    async for chunk in answer.aiter_bytes():
        body += chunk
        if len(body) > MAX_BODY:
            raise TooLarge(f"more than {MAX_BODY} bytes")
    return httpx.Response(answer.status_code, content=bytes(body), request=answer.request)


def no_entry(answer: httpx.Response, space: str) -> CygnetError:
    """What a refusal from before Gradio means: one of our own servers', else the Hub's.

    The Hub answers 404 for what it does not show.
    """
    try:
        told = answer.json()
        detail, next_step = (
            clean_text(str(told[name]))[:MAX_SAID] for name in ("detail", "next_step")
        )
        return error_of(str(told["code"]), detail, next_step)
    except (ValueError, KeyError, TypeError):
        pass
    match answer.status_code:
        case 401 | 403:
            return Unauthorised(
                f"The Space {space} is private, or there is none.",
                "Set HF_TOKEN to a token that may read it.",
            )
        case 404:
            return NotFound(
                f"There is no Space {space}, or it is private.",
                "Check its name; for a private one, set HF_TOKEN to a token that may read it.",
            )
        case status:
            return BackendUnavailable(
                f"The Space {space} answered with status {status}.", "Try again, or read its log."
            )
