"""Published keys: renewed in the background, found when they are new, kept while the issuer is away."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trustme
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st

from nexus_gateway.config.schema import ALGORITHMS
from nexus_gateway.stores.fetch import MAX_BYTES, FetchFailed, fetch
from nexus_gateway.stores.jwks import COOLDOWN_S, MAX_KEYS, PublishedKeys, UnusableKeys, read_keys
from tests.support.raw_server import Peer, RawServer, Script, answering, chunk, plain
from tests.support.tokens import jwk_of

ASYMMETRIC = frozenset(name for name in ALGORITHMS if not name.startswith("HS"))
OLD, NEW = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
RSA_KEY = rsa.generate_private_key(65537, 2048)


def key_set(**keys: Any) -> bytes:
    return json.dumps({"keys": [jwk_of(key, "ES256", kid=kid) for kid, key in keys.items()]}).encode()


class Issuer:
    """Publishes `content` when `gate` is open. None: it fails."""

    def __init__(self, content: bytes | None) -> None:
        self.content = content
        self.fetches = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def fetch(self, _url: str) -> bytes:
        self.fetches += 1
        await self.gate.wait()
        if self.content is None:
            raise FetchFailed("away")
        return self.content


class Clock:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@asynccontextmanager
async def watching(keys: PublishedKeys) -> AsyncIterator[None]:
    task = asyncio.create_task(keys.watch())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


def published(issuer: Issuer, clock: Clock, on_change: Callable[[], None] = lambda: None) -> PublishedKeys:
    return PublishedKeys("https://issuer.example/jwks", ASYMMETRIC, on_change, fetch=issuer.fetch, clock=clock)


# ---- renewal


@pytest.mark.anyio
async def test_a_rotated_key_is_found_at_once_after_the_cooldown() -> None:
    issuer, clock, changes = Issuer(key_set(old=OLD)), Clock(), list[int]()
    keys = published(issuer, clock, lambda: changes.append(issuer.fetches))
    async with watching(keys):
        assert await keys.look_again(), "the first fetch is waited for"
        assert keys.find("ES256", "old")
        issuer.content = key_set(new=NEW)
        assert not await keys.look_again(), "too soon"
        assert keys.find("ES256", "new") is None
        clock.now_s += COOLDOWN_S
        assert await keys.look_again()
        assert keys.find("ES256", "new")
        assert keys.find("ES256", "old") is None, "a key that was withdrawn is good no more"
    assert changes == [1, 2]


@pytest.mark.anyio
async def test_all_who_miss_a_key_share_one_fetch() -> None:
    issuer, clock = Issuer(key_set(old=OLD)), Clock()
    keys = published(issuer, clock)
    async with watching(keys):
        await keys.look_again()
        clock.now_s += COOLDOWN_S
        issuer.gate.clear()
        waiting = [asyncio.create_task(keys.look_again()) for _ in range(100)]
        await asyncio.sleep(0)
        issuer.gate.set()
        assert all(await asyncio.gather(*waiting))
        assert not await keys.look_again()
    assert issuer.fetches == 2


@pytest.mark.anyio
@pytest.mark.parametrize(
    "bad", [None, b"", b"{", b"[]", b'{"keys": 5}', b'{"keys": []}', b'{"keys": [{"kty": "oct"}]}']
)
async def test_what_is_known_holds_while_the_issuer_fails(bad: bytes | None) -> None:
    issuer, clock, changes = Issuer(key_set(old=OLD)), Clock(), list[int]()
    keys = published(issuer, clock, lambda: changes.append(issuer.fetches))
    await keys.renew()
    issuer.content = bad
    await keys.renew()
    assert keys.find("ES256", "old")
    issuer.content = key_set(old=OLD)
    await keys.renew()
    assert changes == [1], "the same keys again are no change"


@pytest.mark.anyio
async def test_failures_and_recovery_are_told_once_each(caplog: pytest.LogCaptureFixture) -> None:
    issuer = Issuer(None)
    keys = published(issuer, Clock())
    for content in (None, None, key_set(old=OLD), key_set(old=OLD), None):
        issuer.content = content
        await keys.renew()
    assert [record.message for record in caplog.records] == ["jwks_failed", "jwks_recovered", "jwks_failed"]


@pytest.mark.anyio
async def test_without_any_key_nothing_is_found() -> None:
    keys = published(Issuer(None), Clock())
    await keys.renew()
    assert keys.find("ES256", "old") is None
    assert keys.find("ES256", None) is None


@pytest.mark.anyio
async def test_keys_rotate_over_the_network() -> None:
    issued = [key_set(old=OLD), key_set(new=NEW)]

    async def script(peer: Peer) -> None:
        await peer.receive()
        await peer.send(plain(issued[0]))

    clock = Clock()
    async with RawServer(script) as server:
        keys = PublishedKeys(f"http://127.0.0.1:{server.port}/jwks", ASYMMETRIC, lambda: None, clock=clock)
        async with watching(keys):
            assert await keys.look_again()
            assert keys.find("ES256", "old")
            del issued[0]
            clock.now_s += COOLDOWN_S
            assert await keys.look_again()
            assert keys.find("ES256", "new")
            assert keys.find("ES256", "old") is None
    assert len(server.peers) == 2


# ---- reading


def test_a_token_without_a_name_of_a_key_needs_the_only_one_that_fits() -> None:
    def found(content: bytes, kid: str | None) -> bool:
        keys = read_keys(content, ASYMMETRIC)
        fitting = [key for key in keys.get(kid, ()) if "ES256" in key.algorithms]
        return len(fitting) == 1

    assert found(key_set(a=OLD), None)
    assert found(key_set(a=OLD, b=NEW), "b")
    assert not found(key_set(a=OLD, b=NEW), None)


def test_keys_for_something_else_are_left_out() -> None:
    members = [
        jwk_of(OLD, "ES256", kid="good"),
        jwk_of(RSA_KEY, "RS256", kid="encryption", use="enc"),
        {"kty": "oct", "k": "c2VjcmV0", "kid": "secret"},
        {"kty": "XX", "kid": "unknown"},
        jwk_of(NEW, "ES256", kid=5),
        "text",
        None,
    ]
    keys = read_keys(json.dumps({"keys": members}).encode(), ASYMMETRIC)
    assert set(keys) == {None, "good"}
    assert len(keys[None]) == 2


@given(
    st.recursive(
        st.none() | st.text() | st.integers(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(st.sampled_from(["keys", "kty", "n", "e", "crv", "x", "y", "key_ops"]), inner)
        ),
    )
)
def test_any_document_is_read_or_refused(document: Any) -> None:
    for content in (document, {"keys": [document]}, {"keys": document}):
        with pytest.raises(UnusableKeys):
            read_keys(json.dumps(content).encode(), ASYMMETRIC)


def test_a_set_has_a_largest_size() -> None:
    one = jwk_of(OLD, "ES256")
    assert read_keys(json.dumps({"keys": [one] * MAX_KEYS}).encode(), ASYMMETRIC)
    with pytest.raises(UnusableKeys):
        read_keys(json.dumps({"keys": [one] * (MAX_KEYS + 1)}).encode(), ASYMMETRIC)
    with pytest.raises(UnusableKeys):
        read_keys(b"[" * 100_000, ASYMMETRIC)


# ---- over the network


def sending(*pieces: bytes, hang: bool = False) -> Script:
    async def script(peer: Peer) -> None:
        await peer.receive()
        for piece in pieces:
            await peer.send(piece)
        if hang:
            await peer.closed.wait()

    return script


CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


@pytest.mark.anyio
@pytest.mark.parametrize(
    "script",
    [
        answering(plain(b"{}")),
        sending(CHUNKED, chunk(b"{"), chunk(b"}"), b"0\r\n\r\n"),
        sending(b"HTTP/1.0 200 OK\r\n\r\n{", b"}"),
    ],
)
async def test_a_document_is_fetched_however_it_is_framed(script: Script) -> None:
    async with RawServer(script) as server:
        assert await fetch(f"http://127.0.0.1:{server.port}/a/jwks?x=1") == b"{}"
        (request,) = server.peers[0].requests
    assert (request.method, request.target) == ("GET", "/a/jwks?x=1")
    assert request.headers["host"] == f"127.0.0.1:{server.port}"


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("script", "cause"),
    [
        (sending(b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n"), "status 302"),
        (answering(plain(b"{}", status=500)), "status 500"),
        (answering(plain(b"x" * (MAX_BYTES + 1))), "more than"),
        (sending(CHUNKED, *[chunk(b"x" * 65536)] * 5, hang=True), "more than"),
        (sending(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n{}"), "cut"),
        (sending(CHUNKED, chunk(b"{}")), "cut"),
        (sending(), "no answer"),
        (sending(hang=True), "too slow"),
        (sending(CHUNKED, chunk(b"{"), hang=True), "too slow"),
        (sending(b"HTTP/1.1 200 OK\r\nx: ", hang=True), "too slow"),
        (sending(b"SSH-2.0-OpenSSH\r\n"), "HttpParser"),
    ],
)
async def test_every_other_answer_is_refused_in_time(script: Script, cause: str) -> None:
    async with RawServer(script) as server:
        with pytest.raises(FetchFailed, match=cause):
            await fetch(f"http://127.0.0.1:{server.port}/jwks", timeout_s=0.2)
        assert len(server.peers) == 1, "no redirect is followed"


@pytest.mark.anyio
async def test_a_server_that_is_away_or_speaks_no_tls_is_refused() -> None:
    async with RawServer(answering(plain(b"{}"))) as server:
        port = server.port
        with pytest.raises(FetchFailed):
            await fetch(f"https://127.0.0.1:{port}/jwks")
    with pytest.raises(FetchFailed):
        await fetch(f"http://127.0.0.1:{port}/jwks")


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("host", "is_trusted", "is_good"),
    [
        ("127.0.0.1", True, True),
        ("127.0.0.1", False, False),
        ("issuer.example", True, False),
    ],
)
async def test_over_tls_the_issuer_must_be_who_it_says(
    host: str, is_trusted: bool, is_good: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = trustme.CA()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(host).configure_cert(tls)
    with authority.cert_pem.tempfile() as path:
        if is_trusted:
            monkeypatch.setenv("SSL_CERT_FILE", path)
        async with RawServer(answering(plain(b"{}")), tls=tls) as server:
            if is_good:
                assert await fetch(f"https://127.0.0.1:{server.port}/jwks") == b"{}"
            else:
                with pytest.raises(FetchFailed, match="SSLCertVerificationError"):
                    await fetch(f"https://127.0.0.1:{server.port}/jwks")
