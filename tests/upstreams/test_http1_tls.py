"""https upstreams: the certificate must be good for the configured host."""

import asyncio
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from nexus_gateway.core.errors import UpstreamConnectError, UpstreamTruncated
from tests.support.raw_server import LAST_CHUNK, STREAM_HEAD, Peer, RawServer, answering, chunk, plain
from tests.support.upstream_calls import ask, http_upstream, relay, request, until

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def ca_file(authority: trustme.CA) -> Iterator[str]:
    with authority.cert_pem.tempfile() as path:
        yield str(Path(path))


def served_by(authority: trustme.CA, *hosts: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*hosts).configure_cert(context)
    return context


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
async def test_a_good_certificate_carries_both_kinds_of_answers(authority: trustme.CA, ca_file: str, host: str) -> None:
    script = answering(plain(b"plain"), STREAM_HEAD + chunk(b"streamed") + LAST_CHUNK)
    tls = served_by(authority, host)
    async with relay(script, tls=tls, kind="https", host=host, ca_file=ca_file) as (server, upstream):
        assert await ask(upstream, body=b"x" * 200_000) == b"plain"
        assert await ask(upstream, stream=True) == b"streamed"
        assert [len(peer.requests) for peer in server.peers] == [2]
        assert server.peers[0].requests[0].body == b"x" * 200_000


async def test_a_certificate_for_another_host_is_refused(authority: trustme.CA, ca_file: str) -> None:
    tls = served_by(authority, "elsewhere.example")
    async with relay(answering(plain()), tls=tls, kind="https", host="localhost", ca_file=ca_file) as (
        server,
        upstream,
    ):
        with pytest.raises(UpstreamConnectError):
            await ask(upstream)
        assert not any(peer.requests for peer in server.peers)


@pytest.mark.parametrize("known", ["the system's", "another"])
async def test_a_certificate_of_an_unknown_authority_is_refused(authority: trustme.CA, known: str) -> None:
    tls = served_by(authority, "localhost")
    with trustme.CA().cert_pem.tempfile() as other:
        ca_file = other if known == "another" else None
        options = {"kind": "https", "host": "localhost", "ca_file": ca_file}
        async with relay(answering(plain()), tls=tls, **options) as (server, upstream):
            with pytest.raises(UpstreamConnectError):
                await ask(upstream)
            assert not any(peer.requests for peer in server.peers)


async def test_a_server_that_speaks_no_tls_is_refused(ca_file: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await peer.closed.wait()

    async with relay(script, kind="https", host="localhost", ca_file=ca_file) as (_, upstream):
        with pytest.raises(UpstreamConnectError):
            await ask(upstream)


async def test_a_handshake_that_stalls_ends_with_the_connect_timeout(ca_file: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.closed.wait()

    async with relay(script, kind="https", host="localhost", ca_file=ca_file, connect_s=0.1) as (server, upstream):
        with pytest.raises(UpstreamConnectError):
            await ask(upstream)
        await server.peers[0].closed.wait()


async def test_an_answer_to_the_end_needs_a_proper_end(authority: trustme.CA, ca_file: str) -> None:
    """Anybody on the way can close a TCP connection; only the upstream can say that its TLS connection ends."""

    async def script(peer: Peer) -> None:
        await peer.receive()
        await peer.send(b"HTTP/1.1 200 OK\r\n\r\nhello")
        if len(server.peers) == 1:
            peer.close()
        else:
            await read.wait()
            peer.reset()

    options = {"kind": "https", "host": "localhost", "ca_file": ca_file}
    async with relay(script, tls=served_by(authority, "localhost"), **options) as (server, upstream):
        read = asyncio.Event()
        assert await ask(upstream) == b"hello"
        reply = await upstream.send(request(stream=True))
        assert await reply.read(asyncio.get_running_loop().time() + 2) == b"hello"
        read.set()
        with pytest.raises(UpstreamTruncated):
            await reply.read(asyncio.get_running_loop().time() + 2)
        await reply.aclose()


async def test_an_idle_connection_that_is_closed_is_replaced(authority: trustme.CA, ca_file: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.receive()
        await peer.send(plain())

    options = {"kind": "https", "host": "localhost", "ca_file": ca_file}
    async with relay(script, tls=served_by(authority, "localhost"), **options) as (server, upstream):
        for _ in range(2):
            await ask(upstream)
            await until(lambda: upstream.open_connections == 0)
        assert len(server.peers) == 2


def asking(authority: trustme.CA, trusted: trustme.CA) -> ssl.SSLContext:
    """A server's context that talks only to clients whom `trusted` knows."""
    context = served_by(authority, "localhost")
    trusted.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


@pytest.mark.parametrize("files", ["one", "two"])
async def test_a_server_that_asks_who_it_talks_to_is_shown_the_certificate(
    authority: trustme.CA, ca_file: str, files: str, tmp_path: Path
) -> None:
    team = trustme.CA()
    own = team.issue_cert("gateway.internal")
    shown = {"cert_file": str(tmp_path / "both.pem")}
    if files == "one":
        own.private_key_and_cert_chain_pem.write_to_path(shown["cert_file"])
    else:
        shown["key_file"] = str(tmp_path / "key.pem")
        own.private_key_pem.write_to_path(shown["key_file"])
        own.cert_chain_pems[0].write_to_path(shown["cert_file"])
    options = {"kind": "https", "host": "localhost", "ca_file": ca_file, **shown}
    async with relay(answering(plain(b"for you")), tls=asking(authority, team), **options) as (_, upstream):
        assert await ask(upstream) == b"for you"


@pytest.mark.parametrize("shown", ["nothing", "a stranger's"])
async def test_a_server_that_asks_and_is_not_content_is_an_upstream_that_cannot_be_reached(
    authority: trustme.CA, ca_file: str, shown: str
) -> None:
    stranger = trustme.CA().issue_cert("gateway.internal")
    with stranger.private_key_and_cert_chain_pem.tempfile() as path:
        cert_file = path if shown == "a stranger's" else None
        options = {"kind": "https", "host": "localhost", "ca_file": ca_file, "cert_file": cert_file}
        tls = asking(authority, trustme.CA())
        async with relay(answering(plain()), tls=tls, **options) as (server, upstream):
            with pytest.raises(UpstreamConnectError):
                await ask(upstream)
            assert not any(peer.requests for peer in server.peers)


async def test_a_missing_ca_file_is_found_at_start() -> None:
    async with RawServer(answering(plain())) as server:
        with pytest.raises(OSError, match="No such file"):
            async with http_upstream(server.port, kind="https", host="localhost", ca_file="/nonexistent.pem"):
                pass
