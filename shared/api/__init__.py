"""The HTTP API over any backend: `create_api(backend, store)` is an ASGI app."""

from shared.api.app import create_api
from shared.api.options import ApiOptions

__all__ = ["ApiOptions", "create_api"]
