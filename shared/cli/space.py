"""`cygnet space`: the Hugging Face Space, laid out, checked and published; see `shared.mirror`."""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from shared.cli.parser import NUMBER, Commands, check_numbers
from shared.contract import Limit
from shared.errors import InvalidRequest
from shared.packages import needed
from shared.settings import read_secret, secret, settings

if TYPE_CHECKING:
    from shared.mirror import hub

_LIMITS = {"sleep_time": Limit(-1, 31_536_000)}


def add(commands: Commands) -> None:
    space = commands.add_parser("space", help="publish the Hugging Face Space")
    actions = space.add_commands("ACTION")

    build = actions.add_parser("build", help="lay out its repository in an empty folder")
    build.add_argument("folder", type=Path, metavar="DIR")
    build.set_defaults(run=_build)

    check = actions.add_parser(
        "check", help="say whether a folder is its repository, and would build"
    )
    check.add_argument("folder", type=Path, metavar="DIR")
    check.set_defaults(run=_check)

    publish = actions.add_parser("publish", help="create or update it on the Hub, with HF_TOKEN")
    publish.add_argument("space", metavar="OWNER/NAME")
    publish.set_defaults(run=_publish)
    _add_wishes(publish)


def _add_wishes(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the Space", "What is left out stays as it is.")
    group.add_argument(
        "--private", action=argparse.BooleanOptionalAction, help="show it to nobody else"
    )
    group.add_argument("--hardware", metavar="NAME", help="such as cpu-basic or zero-a10g")
    group.add_argument("--sleep-time", **NUMBER, help="seconds without a visitor; -1 for never")
    group.add_argument(
        "--variables", nargs="+", default=[], metavar="NAME=VALUE", help="settings anybody may read"
    )
    group.add_argument(
        "--secrets",
        nargs="+",
        default=[],
        metavar="NAME",
        help="settings nobody may read; their values come from the environment",
    )
    group.add_argument("--json", action="store_true", help="print what was done as JSON")


def _build(args: argparse.Namespace) -> None:
    from shared.mirror import tree

    print(f"{args.folder}  {len(tree.build(args.folder))} files")


def _check(args: argparse.Namespace) -> None:
    with needed("The Space's tools", "publish"):
        from shared.mirror.check import check
    check(args.folder)
    print(f"{args.folder}  is the Space's repository, and its pins fit")


def _publish(args: argparse.Namespace) -> None:
    check_numbers(vars(args), _LIMITS)
    with needed("The Space's tools", "publish"):
        from shared.mirror import hub, tree
        from shared.mirror.check import check
    wishes = hub.Wishes(
        private=args.private,
        hardware=hub.read_hardware(args.hardware),
        sleep_time=None if args.sleep_time is None else int(args.sleep_time),
        variables=dict(_pair(text) for text in args.variables),
        secrets={_name(text): read_secret(text) for text in args.secrets},
    )
    with tempfile.TemporaryDirectory() as folder:
        tree.build(Path(folder))
        check(Path(folder))
        done = hub.publish(
            args.space,
            Path(folder),
            wishes,
            secret("HF_TOKEN") or None,
            settings().hub_url,
        )
    if args.json:
        print(json.dumps(dataclasses.asdict(done), indent=2))
    else:
        print(f"{done.url}  {_summary(done)}")
        if done.checkpoint:
            print(
                f"For its GPU the variable CYGNET_CHECKPOINT was set to {done.checkpoint}; "
                "--variables CYGNET_CHECKPOINT=NAME chooses another."
            )


def _summary(done: hub.Published) -> str:
    if not done.sent and not done.removed:
        return "unchanged"
    changes = [f"{len(done.sent)} files sent"] if done.sent else []
    changes += [f"{len(done.removed)} removed"] if done.removed else []
    return f"{'created' if done.created else 'updated'}: {', '.join(changes)}"


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise InvalidRequest(f"--variables {text[:60]} has no value.", "Give it as NAME=VALUE.")
    return _name(name), value


def _name(text: str) -> str:
    """A name as environment variables have it. What is none may hold a secret, and is not shown."""
    if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,100}", text):
        return text
    raise InvalidRequest(
        "A variable or secret needs a name of letters, digits and _.",
        "Give a secret by its name alone: its value is read from the environment.",
    )
