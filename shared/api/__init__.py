"""The HTTP API: `create_api(backend, store)` is an ASGI app, `create_app(jobs, options)` one over
anything that keeps and runs jobs."""

from shared.api.app import create_api, create_app, create_refusal
from shared.api.job_service import JobService
from shared.api.metrics import Metrics
from shared.api.options import ApiOptions

__all__ = ["ApiOptions", "JobService", "Metrics", "create_api", "create_app", "create_refusal"]
