"""Every HTTP client is made here, so that one rule holds for all: none reaches this machine by a proxy.

Elsewhere they go through the environment's proxies (`shared.proxies`). The rule is kept call by call,
also where a redirect leads from one to the other. httpx and its successor httpx2 have one interface;
MCP's library and the Hub's take clients of the latter, or of the one that their version was made for.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any

from shared.errors import CygnetError
from shared.proxies import Proxy, hidden, proxy_for

if TYPE_CHECKING:  # which of the two is installed depends on what Cygnet is to do
    import httpx
    import httpx2

KEPT_SECONDS = 3.0
"""How long a connection is kept for the next call: less than servers do, of which many close theirs after
five seconds, so that none is closed just as a call goes out on it."""


def client(transport: httpx.AsyncBaseTransport | None = None, **options: Any) -> httpx.AsyncClient:
    """A client for any address. `transport` stands in for the network.

    Its calls raise `InvalidSetting` or `PackageMissing` for a proxy that cannot be used.
    """
    import httpx

    limits = options.pop("limits", None) or _pool(httpx)
    routes: Any = transport or _AsyncRoutes(httpx, limits)
    return httpx.AsyncClient(transport=routes, trust_env=False, **options)


def direct_client(**options: Any) -> httpx.AsyncClient:
    """A client that never takes a proxy: for who has chosen the very machine to connect to."""
    import httpx

    return httpx.AsyncClient(trust_env=False, **options)


def mcp_client(headers: Mapping[str, str]) -> httpx2.AsyncClient:
    """A client for MCP's library, as patient as the library's own."""
    import httpx2

    routes: Any = _AsyncRoutes(httpx2, _pool(httpx2))
    timeout = httpx2.Timeout(30, read=300)
    return httpx2.AsyncClient(transport=routes, trust_env=False, headers=headers, timeout=timeout)


@functools.cache
def keep_the_hub_to_it() -> None:
    """Have the Hub's library make its clients by the same rule."""
    import huggingface_hub

    with hidden():
        usual = huggingface_hub.get_session()
    library = importlib.import_module(type(usual).__module__.partition(".")[0])

    def make() -> Any:
        return library.Client(
            transport=_Routes(library),
            trust_env=False,
            event_hooks=usual.event_hooks,
            follow_redirects=usual.follow_redirects,
            timeout=usual.timeout,
        )

    huggingface_hub.set_client_factory(make)


def spoken(error: Exception) -> str:
    """A failed call's error in a word or two, with the proxy that the call went through."""
    proxy: Proxy | None = getattr(error, "proxy", None)
    return type(error).__name__ + (f", through the proxy of {proxy.variable}" if proxy else "")


def proxy_fault(error: BaseException | None) -> CygnetError | None:
    """What is wrong with a proxy, where that led to `error`, whatever a library made of it."""
    while error is not None and not isinstance(error, CygnetError):
        error = error.__cause__ or error.__context__
    return error


def _pool(library: ModuleType) -> Any:
    return library.Limits(
        max_connections=100, max_keepalive_connections=20, keepalive_expiry=KEPT_SECONDS
    )


class _AsyncRoutes:
    """Sends each call on its way: direct, or through its proxy."""

    def __init__(self, library: ModuleType, limits: Any) -> None:
        self._make = functools.partial(library.AsyncHTTPTransport, limits=limits)
        self._error = library.TransportError
        self._direct = self._make()
        self._by_proxy: dict[Proxy, Any] = {}

    async def handle_async_request(self, request: Any) -> Any:
        proxy = proxy_for(request.url.scheme, request.url.host, request.url.port)
        if proxy is None:
            return await self._direct.handle_async_request(request)
        if proxy not in self._by_proxy:
            self._by_proxy[proxy] = _through(proxy, self._make)
        try:
            return await self._by_proxy[proxy].handle_async_request(request)
        except self._error as error:
            error.proxy = proxy
            raise

    async def aclose(self) -> None:
        for transport in (self._direct, *self._by_proxy.values()):
            await transport.aclose()

    async def __aenter__(self) -> _AsyncRoutes:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


class _Routes:
    """The same for the Hub's library, which falls back on its cache where it cannot connect."""

    def __init__(self, library: ModuleType) -> None:
        self._make = library.HTTPTransport
        self._no_connection = library.ConnectError
        self._direct = self._make()
        self._by_proxy: dict[Proxy, Any] = {}

    def handle_request(self, request: Any) -> Any:
        proxy = proxy_for(request.url.scheme, request.url.host, request.url.port)
        if proxy is None:
            return self._direct.handle_request(request)
        try:
            if proxy not in self._by_proxy:
                self._by_proxy[proxy] = _through(proxy, self._make)
        except CygnetError as fault:
            raise self._no_connection(str(fault)) from fault
        return self._by_proxy[proxy].handle_request(request)

    def close(self) -> None:
        for transport in (self._direct, *self._by_proxy.values()):
            transport.close()

    def __enter__(self) -> _Routes:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _through(proxy: Proxy, make: Any) -> Any:
    """A transport through that proxy. Raises `InvalidSetting` or `PackageMissing`."""
    if fault := proxy.fault:
        raise fault
    try:
        return make(proxy=proxy.url)
    except Exception as error:  # each library has its own word for an address that it cannot read
        raise proxy.unusable() from error
