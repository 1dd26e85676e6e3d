"""What an operator may choose about the API."""

from __future__ import annotations

from dataclasses import dataclass, field

DAY = 24 * 60 * 60.0


@dataclass(frozen=True)
class ApiOptions:
    """The defaults are right for one GPU, or one CPU, behind one address."""

    keys: tuple[str, ...] = field(default=(), repr=False)
    """Any of them opens the API; with none, it is open to whoever reaches it."""
    hosts: tuple[str, ...] = ()
    """The host names it answers to; with none given, to any."""
    origins: tuple[str, ...] = ()
    """Web pages from these origins may call it from a browser."""
    max_queued: int = 64
    requests_per_minute: int = 0
    """For each key; 0 for no limit."""
    concurrency: int = 24
    """Jobs handed to the backend at once; it batches those it can. Three quarters of them may be a
    batch's: with 12 at once 48 of the smallest pictures took 9.1 s of CPU time, with 24 8.1 s."""
    max_body: int = 2**20
    url_seconds: float = 60 * 60.0
    """How long the address of an image opens without a key."""
    private_webhooks: bool = False
    """Whether a webhook may be on this machine or network, and speak plain HTTP."""
    log_prompts: bool = False
    keep_seconds: float = 30 * DAY
    keep_bytes: int = 10 * 2**30
    grace: float = 30.0
    """Seconds that running jobs get to end when the server stops; then they are handed back."""
    heartbeat: float = 15.0
    """Seconds of silence after which a stream sends a comment, so that no proxy closes it."""
    warm_up: bool = False
    """Draw one small picture at the start, so that the first request finds the weights loaded."""

    @property
    def is_private(self) -> bool:
        """Whether a stranger may not call: else one is told from another by nothing."""
        return bool(self.keys or self.hosts)
