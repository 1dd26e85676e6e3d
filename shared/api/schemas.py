"""Bodies of calls and answers, as the OpenAPI document describes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

TEXT = {"schema": {"type": "string"}}
BYTES = {"schema": {"type": "string", "format": "binary"}}


def json_body(properties: Mapping[str, Any]) -> dict[str, Any]:
    """For a route's `openapi_extra`: an object with a prompt, whose other fields may be left out, or
    be null, which is the same."""
    optional = {
        name: {"anyOf": [schema, {"type": "null"}]}
        for name, schema in properties.items()
        if name != "prompt"
    }
    schema = {
        "type": "object",
        "required": ["prompt"],
        "properties": {"prompt": properties["prompt"], **optional},
        "additionalProperties": False,
    }
    content = {"application/json": {"schema": schema}}
    return {"requestBody": {"required": True, "content": content}}
