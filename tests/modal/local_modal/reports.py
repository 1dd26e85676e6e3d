"""What the stand-in says on its own behalf."""

from __future__ import annotations

import sys

from grpclib import GRPCError, Status


def say(text: str) -> None:
    print(f"[local_modal] {text}", file=sys.stderr, flush=True)


def refusal(status: Status, text: str) -> GRPCError:
    """An error for the client, which is also shown here."""
    say(text)
    return GRPCError(status, text)
