"""Runs first in each container, then hands over to the container runtime of Modal's client.

It drops from the import path what is neither the interpreter's nor on PYTHONPATH, so that an editable
install of the project hides no missing mount, and points the runtime at a file that only Modal's hosts have.
"""

import os
import runpy
import sys

import modal._runtime.task_lifecycle_manager as lifecycle

allowed = [sys.prefix, sys.base_prefix, *os.environ["PYTHONPATH"].split(":")]
folders = tuple(os.path.realpath(path) + os.sep for path in allowed)
sys.path[:] = [path for path in sys.path if (os.path.realpath(path) + os.sep).startswith(folders)]
sys.meta_path[:] = [
    finder
    for finder in sys.meta_path
    if "editable" not in str(getattr(finder, "__module__", "")).lower()
]
setattr(lifecycle, "SPEC_ENVIRON_PATH", os.environ.pop("LOCAL_MODAL_SPEC_ENVIRON"))  # noqa: B010
sys.argv[:] = ["modal"]
runpy.run_module("modal._container_entrypoint", run_name="__main__", alter_sys=True)
