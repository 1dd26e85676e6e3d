"""What the platform keeps of apps, functions, calls and containers."""

from __future__ import annotations

import asyncio
import re
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

from modal_proto import api_pb2 as pb


@dataclass
class App:
    id: str
    name: str
    ephemeral: bool = False
    deployed: bool = False
    closed: bool = False
    """Its client left: no container starts any more."""
    function_ids: dict[str, str] = field(default_factory=dict)
    class_ids: dict[str, str] = field(default_factory=dict)
    logs: list[pb.TaskLogsBatch] = field(default_factory=list)


@dataclass
class Function:
    id: str
    app: App
    definition: pb.Function
    gpus: list[str] = field(default_factory=list)
    broken: bool = False
    """Its last container failed to start."""
    pending: deque[Input] = field(default_factory=deque)
    containers: list[Container] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.definition.function_name

    @property
    def web(self) -> pb.WebhookConfig | None:
        """How it answers HTTP requests, if it does."""
        config = self.definition.webhook_config
        return config if config.type else None

    @property
    def capacity(self) -> int:
        """How many inputs one container takes at a time."""
        definition = self.definition
        return definition.target_concurrent_inputs or definition.max_concurrent_inputs or 1


@dataclass
class Call:
    id: str
    function: Function
    kind: pb.FunctionCallInvocationType.ValueType = (
        pb.FunctionCallInvocationType.FUNCTION_CALL_INVOCATION_TYPE_UNSPECIFIED
    )
    inputs: list[Input] = field(default_factory=list)
    outputs: list[pb.FunctionGetOutputsItem] = field(default_factory=list)
    """In the order of their arrival."""
    data_in: list[pb.DataChunk] = field(default_factory=list)
    data_out: list[pb.DataChunk] = field(default_factory=list)

    @property
    def finished(self) -> bool:
        return len(self.outputs) == len(self.inputs)


@dataclass(eq=False)
class Input:
    id: str
    call: Call
    idx: int
    payload: pb.FunctionInput
    attempt: int = 0
    container: Container | None = None
    cancelled: bool = False
    done: bool = False


@dataclass(eq=False)
class Container:
    id: str
    function: Function
    home: Path
    process: asyncio.subprocess.Process | None = None
    ready: bool = False
    """It has asked for an input."""
    stopping: str = ""
    """Why, once it takes no more inputs."""
    idle_since: float = 0.0
    running: dict[str, Input] = field(default_factory=dict)
    cancels: list[str] = field(default_factory=list)
    """Inputs to cancel, which the next heartbeat tells it."""
    failure: pb.GenericResult | None = None
    """How it failed to start, in its own words."""
    stderr_tail: str = ""


@dataclass
class Secret:
    name: str
    values: dict[str, str]
    required: list[str]


@dataclass
class Endpoint:
    """The local address of a function that answers HTTP requests."""

    function: Function
    url: str = ""

    @property
    def variable(self) -> str:
        """The environment variable that tells its address."""
        return "LOCAL_MODAL_URL_" + re.sub(r"\W", "_", self.function.name).upper()
