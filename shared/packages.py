"""Says which Python package is missing, and what installs it.

The distribution `cygnet` is on no index: whoever took the name there would be installed in its place.
So the advice is to install from Cygnet's own sources.
"""

from __future__ import annotations

import contextlib
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from shared.errors import PackageMissing

_SOURCES = Path(__file__).resolve().parent.parent


@contextlib.contextmanager
def needed(what: str, extra: str) -> Iterator[None]:
    """Turns an import that fails for want of a package into `PackageMissing`.

    `what` begins the sentence, as in "Serving"; `extra` is the extra of Cygnet that has the package.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise PackageMissing(
            f"{what} needs a package that is not installed: {error.name}.",
            f"In the folder of Cygnet's sources, run: {install_command(extra)}",
        ) from error


def install_command(extra: str) -> str:
    """What to type in the folder of Cygnet's sources, for the environment that runs this."""
    pip = Path("pip")
    if Path(sys.prefix).is_relative_to(_SOURCES):  # as make does it; another may be activated
        pip = Path(sysconfig.get_path("scripts"), "pip").relative_to(_SOURCES)
    return f"{pip} install --constraint constraints.txt --editable '.[{extra}]'"
