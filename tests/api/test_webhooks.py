"""What a job's webhook is told, and which addresses are never called."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import datetime
import json
import re
import socket
import ssl
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import certifi
import openai
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from shared import resolver, webhooks
from shared.addresses import is_public
from shared.api import deliverer
from shared.backends.fake import FakeBackend
from shared.contract import Event, Step
from shared.errors import InvalidRequest, OutOfMemory
from shared.webhooks import WebhookSender
from tests.api.conftest import HeldBackend, Serve, Server

pytestmark = pytest.mark.anyio

KEY = "a-long-key-of-the-tests"
SECRET = "whsec_" + base64.b64encode(KEY.encode()).decode()


class Receiver:
    """Takes calls on the loopback, and answers with these statuses, the last one for ever."""

    def __init__(self, *statuses: int, location: str = "") -> None:
        self.calls: asyncio.Queue[tuple[dict[str, str], bytes]] = asyncio.Queue()
        self._statuses = list(statuses or (204,))
        self._location = location
        self.url = ""

    @contextlib.asynccontextmanager
    async def listening(self, tls: ssl.SSLContext | None = None) -> AsyncIterator[Receiver]:
        server = await asyncio.start_server(self._answer, "127.0.0.1", 0, ssl=tls)
        scheme, port = "https" if tls else "http", server.sockets[0].getsockname()[1]
        self.url = f"{scheme}://localhost:{port}/hook?id=7"
        async with server:
            yield self

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().splitlines()
        headers = {"request": head[0]}
        headers |= {k.lower(): v for k, v in (line.split(": ", 1) for line in head[1:-1])}
        body = await reader.readexactly(int(headers["content-length"]))
        status = self._statuses.pop(0) if len(self._statuses) > 1 else self._statuses[0]
        head = f"HTTP/1.1 {status} X\r\nLocation: {self._location}\r\nContent-Length: 0\r\n\r\n"
        writer.write(head.encode())
        await writer.drain()
        writer.close()
        self.calls.put_nowait((headers, body))


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next try follows at once."""
    monkeypatch.setattr(deliverer, "RETRIES", (0, 0, 0))
    monkeypatch.setattr(deliverer, "_PAUSE", 0)


@contextlib.asynccontextmanager
async def serving(serve: Serve, backend: FakeBackend, **options: Any) -> AsyncIterator[Server]:
    async with serve(backend, keys=(KEY,), private_webhooks=True, **options) as server:
        server.client.headers["Authorization"] = f"Bearer {KEY}"
        yield server


async def test_the_end_of_a_job_is_told_signed_as_openais_client_verifies_it(serve: Serve) -> None:
    async with Receiver().listening() as receiver, serving(serve, FakeBackend()) as server:
        job = await server.post(webhook=receiver.url)
        headers, body = await receiver.calls.get()
        assert headers["request"] == "POST /hook?id=7 HTTP/1.1"
        assert headers["host"] in receiver.url
        assert headers["webhook-id"] == f"msg_{job['id']}"
        with openai.OpenAI(api_key="-", webhook_secret=SECRET) as client:
            client.webhooks.verify_signature(body.decode(), headers)
            with pytest.raises(openai.InvalidWebhookSignatureError):
                client.webhooks.verify_signature(body.decode() + " ", headers)
        told = json.loads(body)
        assert (told["type"], told["object"]) == ("job.succeeded", "event")
        assert told["data"] == {"id": job["id"], "status": "succeeded", "error": None}


async def test_a_failure_and_a_cancel_are_told_too(serve: Serve, backend: HeldBackend) -> None:
    def no_memory(event: Event) -> None:
        if isinstance(event, Step):
            raise OutOfMemory("Too large.", "Ask for less.")

    async with Receiver().listening() as receiver:
        async with serving(serve, FakeBackend(no_memory)) as server:
            await server.post(webhook=receiver.url)
            failed = json.loads((await receiver.calls.get())[1])
            assert failed["type"] == "job.failed"
            assert failed["data"]["error"]["code"] == "out_of_memory"
        async with serving(serve, backend) as server:
            job = await server.post(webhook=receiver.url)
            await server.client.delete(f"/v1/jobs/{job['id']}")
            assert json.loads((await receiver.calls.get())[1])["type"] == "job.cancelled"


@pytest.mark.usefixtures("soon")
async def test_a_receiver_that_fails_is_called_again_with_the_same_message(serve: Serve) -> None:
    async with Receiver(500, 302, 200).listening() as receiver:
        async with serving(serve, FakeBackend()) as server:
            await server.post(webhook=receiver.url)
            calls = [await receiver.calls.get() for _ in range(3)]
            assert len({(headers["webhook-id"], body) for headers, body in calls}) == 1
            await emptied(server)
        assert receiver.calls.empty()


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize(("status", "calls"), [(503, 4), (410, 1)])
async def test_a_receiver_that_never_takes_it_or_is_gone_is_given_up(
    serve: Serve, status: int, calls: int
) -> None:
    async with Receiver(status).listening() as receiver:
        async with serving(serve, FakeBackend()) as server:
            await server.post(webhook=receiver.url)
            await emptied(server)
        assert receiver.calls.qsize() == calls


async def emptied(server: Server) -> None:
    """Until nothing is left to deliver."""
    while server.runner.store.deliveries.wait() is not None:
        await asyncio.sleep(0)


@pytest.mark.usefixtures("soon")
async def test_a_call_that_fails_as_nobody_foresaw_costs_no_other(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    send = WebhookSender.send

    async def broken(self: WebhookSender, url: str, *told: Any) -> int:
        if "bad" in url:
            raise ExceptionGroup("several", [OverflowError("a port")])
        return await send(self, url, *told)

    monkeypatch.setattr(WebhookSender, "send", broken)
    async with Receiver().listening() as receiver, serving(serve, FakeBackend()) as server:
        await server.post(webhook=f"{receiver.url}&bad")
        good = await server.post(webhook=receiver.url)
        assert json.loads((await receiver.calls.get())[1])["data"]["id"] == good["id"]
        await emptied(server)
        assert receiver.calls.empty()


async def test_a_receiver_that_never_answers_holds_up_no_other(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    send, called = WebhookSender.send, asyncio.Event()

    async def silent(self: WebhookSender, url: str, *told: Any) -> int:
        if "silent" in url:
            called.set()
            await asyncio.Event().wait()
        return await send(self, url, *told)

    monkeypatch.setattr(WebhookSender, "send", silent)
    async with Receiver().listening() as receiver, serving(serve, FakeBackend()) as server:
        await server.post(webhook=f"{receiver.url}&silent")
        await called.wait()
        good = await server.post(webhook=receiver.url)
        assert json.loads((await receiver.calls.get())[1])["data"]["id"] == good["id"]


async def test_what_was_not_delivered_is_after_a_restart(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Receiver(500, 204).listening() as receiver:
        async with serving(serve, FakeBackend()) as server:
            await server.post(webhook=receiver.url)
            first = await receiver.calls.get()
        async with serving(serve, FakeBackend()) as server:
            later = server.runner.store.deliveries
            monkeypatch.setattr(later, "_now", lambda: 1e12)  # when the next try is due
            server.runner._deliverer.wake()
            assert (await receiver.calls.get())[1] == first[1]
            await emptied(server)


async def test_a_redirect_is_not_followed(serve: Serve) -> None:
    async with Receiver().listening() as inside:
        redirect = Receiver(302, location=inside.url)
        async with redirect.listening(), serving(serve, FakeBackend()) as server:
            await server.post(webhook=redirect.url)
            await redirect.calls.get()
        assert inside.calls.empty()


REFUSED = [
    "https://127.0.0.1/",
    "https://localhost:8443/",
    "https://2130706433/",
    "https://0x7f.1/",
    "https://10.0.0.1/",
    "https://169.254.169.254/latest/meta-data/",
    "https://192.168.1.1/",
    "https://100.64.0.1/",
    "https://0.0.0.0/",
    "https://224.0.0.1/",
    "https://[::1]/",
    "https://[fe80::1]/",
    "https://[fd00::1]/",
    "https://[::ffff:127.0.0.1]/",
    "https://[64:ff9b::7f00:1]/",
    "https://[2002:7f00:1::]/",
    "http://8.8.8.8/",
    "ftp://8.8.8.8/",
    "https://user:hunter2@8.8.8.8/",
    "https://8.8.8.8:0/",
    "https://8.8.8.8:99999/",
    "https://8.8.8.8/" + "x" * 2000,
    "https://",
    "https://a b/",
    "https://\x00/",
    "https://does-not-exist.invalid/",
    "8.8.8.8",
    "",
    7,
    ["https://8.8.8.8/"],
]


@pytest.mark.parametrize("url", REFUSED)
async def test_an_address_that_may_not_be_called_is_refused_at_once(
    serve: Serve, url: object
) -> None:
    async with serve(FakeBackend(), keys=(KEY,)) as server:
        server.client.headers["Authorization"] = f"Bearer {KEY}"
        answer = await server.client.post("/v1/jobs", json={"prompt": "a fox", "webhook": url})
        assert (answer.status_code, answer.json()["fields"]) == (422, ["webhook"])
        assert "hunter2" not in answer.text
        assert (await server.client.get("/v1/jobs")).json()["data"] == []


async def test_without_a_key_there_is_nothing_to_sign_with(serve: Serve) -> None:
    async with serve(FakeBackend()) as server:
        wanted = {"prompt": "a fox", "webhook": "https://8.8.8.8/"}
        answer = await server.client.post("/v1/jobs", json=wanted)
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_call")


async def test_a_name_that_leads_elsewhere_later_is_not_followed_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers = iter(["8.8.8.8", "127.0.0.1"])

    def look_up(*_: object, **__: object) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (next(answers), 0))]

    sender = WebhookSender()
    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    await sender.check("https://rebind.example/")
    with pytest.raises(InvalidRequest, match="public"):
        await sender.send("https://rebind.example/", "msg", b"{}", b"key")
    await sender.aclose()


def certificate(name: str, folder: Path) -> tuple[Path, Path]:
    """A host's own certificate, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    host = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    signed = (
        x509.CertificateBuilder(host, host, key.public_key(), 1, now, now + datetime.timedelta(1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    files = folder / "certificate.pem", folder / "key.pem"
    files[0].write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return files


async def test_the_call_goes_to_the_number_and_the_certificate_has_to_be_the_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, key = certificate("hook.example", tmp_path)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(own, key)
    monkeypatch.setattr(certifi, "where", lambda: str(own))

    def look_up(*_: object, **__: object) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0))]

    async with Receiver().listening(tls) as receiver:
        sender = WebhookSender(private=True)
        monkeypatch.setattr(socket, "getaddrinfo", look_up)
        right, wrong = (receiver.url.replace("localhost", f"{n}.example") for n in ("hook", "evil"))
        assert await sender.send(right, "msg", b"{}", b"key") == 204
        with pytest.raises(ConnectionError):
            await sender.send(wrong, "msg", b"{}", b"key")
        await sender.aclose()


OTHER = "another-long-key-of-the-tests"


@contextlib.asynccontextmanager
async def trickling(sent: bytes, count: int) -> AsyncIterator[tuple[str, asyncio.Event]]:
    """A receiver that sends its answer a byte at a time and never ends it; set once it was called
    `count` times, and has let go of those."""
    gone = asyncio.Event()
    ended: list[None] = []

    async def trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            writer.write(sent)
            while not reader.at_eof():
                writer.write(b"a")
                await writer.drain()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(reader.read(2**16), 0.02)
        writer.close()
        ended.append(None)
        if len(ended) == count:
            gone.set()

    async with await asyncio.start_server(trickle, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/trickle", gone


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 200 OK\r\nX: "], ids=["status", "header"])
async def test_a_receiver_that_trickles_is_given_up_as_a_whole(
    sent: bytes, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "_DELIVERY_SECONDS", 0.3)
    async with trickling(sent, 1) as (url, gone), serving(serve, FakeBackend()) as server:
        await server.post(webhook=url)
        await gone.wait()
        while server.runner.store.deliveries.due(9) or server.runner._deliverer._calling:
            await asyncio.sleep(0.01)
        assert server.runner.store.deliveries.wait() is not None  # it comes again later


async def test_an_answer_without_an_end_is_not_read(serve: Serve) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n"
    async with trickling(head, 1) as (url, gone), serving(serve, FakeBackend()) as server:
        await server.post(webhook=url)
        await gone.wait()
        await emptied(server)


async def test_one_keys_slow_receivers_hold_up_nobody_elses(serve: Serve) -> None:
    head = b"HTTP/1.1 200 OK\r\nX: "
    both = {"keys": (KEY, OTHER), "private_webhooks": True}
    async with (
        Receiver().listening() as receiver,
        trickling(head, 99) as (slow, _),
        serve(FakeBackend(), **both) as server,
    ):
        server.client.headers["Authorization"] = f"Bearer {KEY}"
        mine = [await server.post(webhook=slow) for _ in range(deliverer._AT_ONCE)]
        for job in mine:
            await server.ended(job["id"])
        calling = server.runner._deliverer._calling
        while len(calling) < deliverer._FOR_EACH_OWNER:
            await asyncio.sleep(0)
        server.client.headers["Authorization"] = f"Bearer {OTHER}"
        await server.post(webhook=receiver.url)
        await receiver.calls.get()
        assert len(calling.keys() & {job["id"] for job in mine}) == deliverer._FOR_EACH_OWNER


async def test_one_keys_silent_name_servers_hold_up_nobody_elses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(webhooks, "_LOOK_UP_SECONDS", 0.05)
    answer, asked = threading.Event(), []

    def look_up(host: str, *_: object, **__: object) -> list[Any]:
        asked.append(host)
        if host == "silent.example":
            answer.wait()
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("8.8.8.8", 0))]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    sender = WebhookSender()
    try:
        for _ in range(2 * resolver._PLACES):  # a thread is held long after its caller has gone
            with pytest.raises(InvalidRequest):
                await sender.check("https://silent.example/", "mine")
        assert asked == ["silent.example"] * resolver._PLACES
        await sender.check("https://good.example/", "another's")
    finally:
        answer.set()
    await sender.check("https://good.example/", "mine")
    await sender.aclose()


SPECIAL = """
    0.0.0.0 0.1.2.3 10.9.8.7 100.64.0.1 100.127.255.254 127.0.0.1 169.254.169.254 172.16.0.1 172.31.9.9
    192.0.0.1 192.0.0.8 192.0.0.9 192.0.0.10 192.0.0.170 192.0.0.171 192.0.2.1 192.31.196.1 192.52.193.1
    192.88.99.1 192.88.99.2 192.168.0.1 192.175.48.1 198.18.0.1 198.19.255.255 198.51.100.1 203.0.113.1
    224.0.0.1 239.255.255.255 240.0.0.1 255.255.255.255
    :: ::1 ::8.8.8.8 ::ffff:8.8.8.8 64:ff9b::808:808 64:ff9b:1::1 100::1 100:0:0:1::1 1000::1 2000::1
    2001::1 2001:1::1 2001:1::2 2001:1::3 2001:2::1 2001:3::1 2001:4:112::1 2001:10::1 2001:20::1
    2001:30::1 2001:1ff::1 2001:db8::1 2002:808:808::1 2620:4f:8000::1 2d00::1 3000::1 3ffe::1 3fff::1
    3fff:fff::1 4000::1 5f00::1 fc00::1 fd00::1 fe80::1 fe80::1%1 fec0::1 ff02::1 ff0e::1
"""


@pytest.mark.parametrize("address", SPECIAL.split())
def test_addresses_with_a_special_purpose_are_not_public(address: str) -> None:
    assert not is_public(address)


PUBLIC = """
    1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.1 100.63.255.255 100.128.0.1 172.15.0.1 172.32.0.1 192.0.1.1
    192.167.0.1 192.169.0.1 198.17.0.1 198.20.0.1 203.0.112.1 223.255.255.1
    2001:200::1 2001:4860:4860::8888 2003::1 2400:cb00::1 2404:6800:4001::1 2606:4700:4700::1111
    2620:fe::fe 2804:14c::1 2a00:1450:4001::1 2a10:3781::1 2c0f:fb50::1
"""


@pytest.mark.parametrize("address", PUBLIC.split())
def test_public_addresses_are_public(address: str) -> None:
    assert is_public(address)


async def test_the_check_in_the_docs_knows_a_message_from_another(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (Path(__file__).parents[2] / "docs/api.md").read_text()
    [example] = re.findall(r"^```python\n([^`]*?def is_ours.*?)^```$", page, flags=re.M | re.S)
    names: dict[str, Any] = {}
    exec(example, names)
    monkeypatch.setenv("CYGNET_API_KEY", KEY)
    async with Receiver().listening() as receiver, serving(serve, FakeBackend()) as server:
        await server.post(webhook=receiver.url)
        headers, body = await receiver.calls.get()
    assert names["is_ours"](headers, body)
    assert not names["is_ours"](headers, body + b" ")
    assert not names["is_ours"](headers | {"webhook-timestamp": "0"}, body)
