"""`cygnet checkpoints`: the weights that can be used."""

from __future__ import annotations

import argparse
import json

from shared import console
from shared.checkpoints import CHECKPOINTS
from shared.cli.parser import Commands


def add(commands: Commands) -> None:
    checkpoints = commands.add_parser("checkpoints", help="list the weights that can be used")
    checkpoints.add_argument("--json", action="store_true", help="print JSON")
    checkpoints.set_defaults(run=_checkpoints)


def _checkpoints(args: argparse.Namespace) -> None:
    if args.json:
        print(json.dumps([console.checkpoint_facts(row) for row in CHECKPOINTS], indent=2))
    else:
        console.print_checkpoints()
