"""Many people at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
from gradio_client import Client
from playwright.sync_api import Browser, expect

from shared.backends import local
from shared.backends.local import LocalBackend
from shared.images import read_recipe
from tests.space.browser import browser, draw, drawn, visit
from tests.space.conftest import HeldBackend, Serve

__all__ = ["browser"]

PEOPLE = 10


def until(happened: Callable[[], Any]) -> Any:
    """What `happened` gives once it gives something; that nothing comes is left to the time limit."""
    while not (found := happened()):
        time.sleep(0.02)  # leaves the machine to what is waited for
    return found


def test_ten_people_wait_their_turn_and_each_gets_their_own_picture(serve: Serve) -> None:
    backend = HeldBackend()
    with serve(backend, concurrency=2) as url:
        client: Any = Client(url, verbose=False)
        jobs = [
            client.submit(f"wish {number}", seed=number, steps=1, api_name="/generate")
            for number in range(PEOPLE)
        ]
        waiting = PEOPLE - 2
        last = until(lambda: next((job for job in jobs if job.status().rank == waiting - 1), None))
        for rank in range(waiting - 2, -1, -1):
            backend.let(1)
            until(lambda rank=rank: last.status().rank == rank)
        backend.let(3)
        for number, job in enumerate(jobs):
            job.result(timeout=60)
            [image] = [event["image"] for event in job.outputs() if event["type"] == "image"]
            recipe = read_recipe(Path(image)).fields
            assert (recipe["prompt"], recipe["seed"]) == (f"wish {number}", number)


def test_one_stop_stops_one(serve: Serve, browser: Browser) -> None:
    backend = HeldBackend()
    with serve(backend) as url:
        mine, theirs = (visit(browser.new_context().new_page(), url) for _ in range(2))
        draw(mine, "mine")
        draw(theirs, "theirs")
        for tab in (mine, theirs):
            tab.wait_for_selector(".stage[data-phase=running]")
        mine.click("#stop")
        assert backend.stopped.get(timeout=60) == "mine"
        backend.let(20)
        drawn(theirs)
        expect(theirs.locator(".stage .prompt")).to_have_text("theirs")
        assert backend.stopped.empty()
        for context in browser.contexts:
            context.close()


def test_who_waits_is_told_so_on_the_page(serve: Serve, browser: Browser) -> None:
    backend = HeldBackend()
    with serve(backend, concurrency=1) as url:
        first, second = (visit(browser.new_context().new_page(), url) for _ in range(2))
        draw(first)
        first.wait_for_selector(".stage[data-phase=running]")
        draw(second)
        expect(second.locator("#right")).to_contain_text("queue: 1/1")
        backend.let(40)
        drawn(second)
        for context in browser.contexts:
            context.close()


def test_the_page_is_served_before_the_checkpoint_is_loaded(serve: Serve, monkeypatch: Any) -> None:
    let_go = threading.Event()
    load = local._load

    def slow(*arguments: Any) -> Any:
        let_go.wait(60)
        return load(*arguments)

    monkeypatch.setattr(local, "_load", slow)
    with serve(LocalBackend(), warm_up=True) as url:
        assert "Cygnet" in httpx.get(url).text
        assert httpx.get(f"{url}/readyz").status_code == 503
        let_go.set()
        until(lambda: httpx.get(f"{url}/readyz").status_code == 200)
