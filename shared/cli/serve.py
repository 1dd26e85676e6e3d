"""`cygnet serve`: the HTTP API; what it does is in `shared.serving`."""

from __future__ import annotations

import argparse

from shared.cli.parser import NUMBER, Commands
from shared.cli.request import add_backend_option
from shared.packages import needed


def add(commands: Commands) -> None:
    serve = commands.add_parser("serve", help="answer over HTTP, OpenAI's clients included")
    serve.set_defaults(run=_serve)
    _add_serve_options(serve)


def _add_serve_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--host", default="127.0.0.1", metavar="NAME", help="address (default: this machine only)"
    )
    parser.add_argument("--port", default=8000, **NUMBER, help="0 takes a free one (default: 8000)")
    parser.add_argument("--max-queued", default=64, **NUMBER, help="jobs that may wait (64)")
    parser.add_argument(
        "--requests-per-minute", default=0, **NUMBER, help="for each key; 0 is no limit (0)"
    )
    parser.add_argument("--keep-days", default=30, **NUMBER, help="how long jobs are kept (30)")
    parser.add_argument(
        "--keep-gib", default=10, **NUMBER, help="of pictures kept, jobs and gallery (10)"
    )
    parser.add_argument(
        "--origin",
        action="append",
        default=[],
        metavar="URL",
        help="lets web pages from there call",
    )
    parser.add_argument(
        "--private-webhooks",
        action="store_true",
        help="lets webhooks call this machine and network",
    )
    parser.add_argument("--log-prompts", action="store_true", help="puts prompts into the log")
    add_backend_option(parser)
    parser.add_argument(
        "--child",
        action="store_true",
        help="for a program that starts it: keep nothing, end with standard input",
    )


def _serve(args: argparse.Namespace) -> None:
    with needed("Serving", "space"):  # with the page
        from shared import serving
    serving.serve(serving.read_options(vars(args)))
