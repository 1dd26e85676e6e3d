"""`cygnet inspect`: how a picture was made."""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path

from shared import console
from shared.cli.parser import Commands
from shared.images import read_recipe


def add(commands: Commands) -> None:
    inspect = commands.add_parser("inspect", help="print how a picture was made")
    inspect.add_argument("file", type=Path, metavar="FILE", help="PNG, WebP or JPEG")
    inspect.add_argument("--json", action="store_true", help="print JSON")
    inspect.set_defaults(run=_inspect)


def _inspect(args: argparse.Namespace) -> None:
    recipe = read_recipe(args.file)
    if args.json:
        print(json.dumps(dataclasses.asdict(recipe), indent=2))
    else:
        console.print_recipe(recipe)
