"""The command line: deploy an app file, and describe it or serve it."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shlex
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from tests.modal.local_modal.describe import describe
from tests.modal.local_modal.options import Options
from tests.modal.local_modal.platform import HOST, Platform
from tests.modal.local_modal.reports import say


def client_environment(platform: Platform) -> dict[str, str]:
    """What a process needs to take the stand-in for Modal."""
    no_proxy = ",".join(filter(None, [os.environ.get("NO_PROXY"), HOST, "localhost"]))
    return {
        "MODAL_SERVER_URL": platform.url,
        "MODAL_TOKEN_ID": "ak-local",
        "MODAL_TOKEN_SECRET": "as-local",
        "MODAL_ENVIRONMENT": "main",
        "MODAL_CONFIG_PATH": str(platform.state / "no-modal.toml"),
        "MODAL_DISABLE_API_PROXY": "1",
        "NO_PROXY": no_proxy,
        "no_proxy": no_proxy,
        **{one.variable: one.url for one in platform.endpoints.by_name.values()},
    }


async def deploy(platform: Platform) -> int:
    """`modal deploy`, by the real client; its exit code."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "modal", "deploy", platform.options.file,
        env=os.environ | client_environment(platform), stdout=sys.stderr,
    )  # fmt: skip
    try:
        return await process.wait()
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()


async def work(platform: Platform, interrupted: asyncio.Event) -> int:
    if code := await deploy(platform):
        say(f"the deployment of {platform.options.file} failed")
        return code
    if platform.options.describes:
        print(json.dumps(describe(platform), indent=2))
        return 0
    for name, value in client_environment(platform).items():
        print(f"export {name}={shlex.quote(value)}", flush=True)
    say("serving until Ctrl-C")
    await interrupted.wait()
    return 0


async def run(options: Options) -> int:
    platform = Platform(options)
    await platform.start()
    interrupted = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, interrupted.set)
    try:
        doing = asyncio.create_task(work(platform, interrupted))
        stop = asyncio.create_task(interrupted.wait())
        await asyncio.wait([doing, stop], return_when=asyncio.FIRST_COMPLETED)
        if not doing.done() and options.describes:
            doing.cancel()
        await asyncio.wait([doing])
        stop.cancel()
        return 130 if doing.cancelled() else doing.result()
    finally:
        await platform.stop()
        if options.timeline:
            options.timeline.write_text(json.dumps(platform.timeline, indent=1) + "\n")


def pair(separator: str) -> Callable[[str], tuple[str, str]]:
    def parse(text: str) -> tuple[str, str]:
        key, found, value = text.partition(separator)
        if not key or not found:
            raise argparse.ArgumentTypeError(f"expected NAME{separator}VALUE, got {text!r}")
        return key, value

    return parse


def read_options(arguments: list[str]) -> Options:
    parser = argparse.ArgumentParser(prog="python -m tests.modal.local_modal")
    actions = parser.add_subparsers(dest="action", required=True)
    actions.add_parser("inspect", help="print what the platform is told about FILE, as JSON")
    actions.add_parser("up", help="deploy FILE and serve it until Ctrl-C")
    for action in actions.choices.values():
        action.add_argument("file", help="the app")
    add = actions.choices["up"].add_argument
    add("--secret", action="append", default=[], metavar="NAME:KEY=VALUE", type=pair(":"))
    add("--env", action="append", default=[], metavar="NAME=VALUE", type=pair("="),
        help="set in every container")  # fmt: skip
    add("--container-python", type=Path, default=Path(sys.executable), dest="python",
        metavar="FILE", help="the interpreter of the containers")  # fmt: skip
    add("--idle", type=float, default=20.0, help="seconds that an idle container stays")
    add("--json", type=Path, metavar="FILE", dest="timeline", help="write down what happened")
    told = parser.parse_args(arguments)
    if told.action == "inspect":
        return Options(told.file, describes=True)
    secrets: dict[str, dict[str, str]] = {}
    for name, value in told.secret:
        key, text = pair("=")(value)
        secrets.setdefault(name, {})[key] = text
    return Options(
        told.file,
        secrets=secrets,
        environment=dict(told.env),
        python=told.python.absolute(),
        idle=told.idle,
        timeline=told.timeline,
    )


if __name__ == "__main__":
    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # containers would inherit an ignored one
    sys.exit(asyncio.run(run(read_options(sys.argv[1:]))))
