"""Which proxy of the environment a call goes through: none to this machine, the user's elsewhere.

The variables are those of every HTTP client: `http_proxy`, `https_proxy`, `all_proxy` and `no_proxy`, in
small or in capital letters. They are read at each call. This module does not know who calls.
"""

from __future__ import annotations

import contextlib
import importlib.util
import ipaddress
import os
import re
import socket
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from shared.errors import CygnetError, InvalidSetting, PackageMissing

_SCHEMES = ("http", "https", "socks5", "socks5h")


@dataclass(frozen=True)
class Proxy:
    """A proxy, and the variable that names it. The address may hold a password: say the variable."""

    url: str = field(repr=False)
    variable: str

    @property
    def fault(self) -> CygnetError | None:
        """Why it cannot be used, if that can be told without asking it."""
        try:
            parts = urlsplit(self.url)
            known = parts.scheme in _SCHEMES and bool(parts.hostname) and parts.port != 0
            known = known and not re.search(r"\s", self.url)
        except ValueError:  # a port that is no number, half an IPv6 address
            known = False
        if not known:
            return self.unusable()
        if self.url.lower().startswith("socks") and not importlib.util.find_spec("socksio"):
            return PackageMissing(
                f"{self.variable} names a SOCKS proxy, which needs the package socksio.",
                f"Install it with: pip install socksio; or unset {self.variable}.",
            )
        return None

    def unusable(self) -> InvalidSetting:
        return InvalidSetting(
            f"{self.variable} names no proxy that can be used.",
            f"Write {self.variable}=http://HOST:PORT, or https://, socks5:// or socks5h:// in place of "
            "http://; or unset it.",
        )


def proxy_for(scheme: str, host: str, port: int | None = None) -> Proxy | None:
    """The proxy for a call to that host, if there is one for it."""
    if is_this_machine(host):
        return None
    proxies = urllib.request.getproxies()
    kind = scheme if proxies.get(scheme) else "all"
    url = proxies.get(kind, "").strip()
    if not url or urllib.request.proxy_bypass(host if port is None else f"{host}:{port}"):
        return None
    return Proxy(url if "://" in url else f"http://{url}", _variable(kind))


def is_this_machine(host: str) -> bool:
    """Whether a host, as an address has it, is this machine's loopback under any of its names."""
    name = host.strip("[]").rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        ip = ipaddress.ip_address(name)
    except ValueError:
        try:
            ip = ipaddress.IPv4Address(socket.inet_aton(name))  # as short as 127.1
        except (OSError, UnicodeError):
            return False
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped:
        ip = ip.ipv4_mapped
    return ip.is_loopback or ip.is_unspecified


@contextlib.contextmanager
def hidden() -> Iterator[None]:
    """No proxy for the libraries that read the environment meanwhile.

    Some make clients as they are imported, or call this machine, and fail with a proxy that cannot be
    used or cannot reach it.
    """
    held = {name: os.environ.pop(name) for name in _variables()}
    try:
        yield
    finally:
        os.environ.update(held)


def _variables() -> list[str]:
    kinds = ("http_proxy", "https_proxy", "all_proxy")
    return sorted((name for name in os.environ if name.lower() in kinds), key=str.islower)


def _variable(kind: str) -> str:
    """The name that is set; small letters are read before capitals."""
    names = [name for name in _variables() if name.lower() == f"{kind}_proxy"]
    return names[-1] if names else "The system's settings"
