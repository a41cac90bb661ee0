"""`GET /`: what this is, and where to go from here. A browser gets links to follow.

For:      people who have just started the gateway, or found it.
Touches:  nothing.
"""

from collections.abc import Iterable
from html import escape
from typing import Final

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

from nexus_gateway import __version__

from .pages import load
from .protocol import SERVING

NAME: Final = "Nexus Gateway"
ADDRESSES: Final = {  # relative, for gateways behind a path prefix
    "docs": "docs",
    "admin": "admin",
    "models": "v1/models",
    "metrics": "metrics",
    "health": "healthz",
    "ready": "readyz",
    "openapi": "openapi.json",
}
SAYS: Final = {
    "models": ("The models that a key may use (asks for the key)", "키로 쓸 수 있는 모델(키 필요)"),
    "docs": ("The API, to read and to try", "API 설명과 시험"),
    "openapi": ("The API's description for tools", "도구를 위한 API 명세"),
    "metrics": ("Prometheus metrics", "Prometheus 지표"),
    "health": ("Is the process alive", "프로세스가 살아 있는지"),
    "ready": ("Should traffic come here", "트래픽을 받아도 되는지"),
    "admin": (
        "Live traffic, upstreams, keys and errors (asks for the admin key)",
        "실시간 트래픽, 업스트림, 키, 오류(관리 키 필요)",
    ),
}

API: Final = frozenset({"models"})
PUBLIC: Final = API | {"health", "ready"}  # on the port of the API, where operators have one of their own


class Index:
    """The root with those of ADDRESSES that lead somewhere."""

    def __init__(self, names: Iterable[str]) -> None:
        links = {name: ADDRESSES[name] for name in names}
        self._told = {"name": NAME, "version": __version__, "links": links}
        rows = "\n".join(_row(name, address) for name, address in links.items())
        self._page = load("index", version=escape(__version__), links=rows)

    def answer(self, accept: str) -> Response:
        answer = self._page.response() if "text/html" in accept else JSONResponse(self._told)
        answer.headers["vary"] = "accept"
        return answer


def add_index(app: FastAPI, *, has_admin: bool, ops_apart: bool) -> None:
    """`ops_apart`: operators have a port of their own, and each port tells what is on it."""
    everything = [name for name in ADDRESSES if has_admin or name != "admin"]
    public = for_operators = Index(everything)
    if ops_apart:
        public = Index(name for name in everything if name in PUBLIC)
        for_operators = Index(name for name in everything if name not in API)

    @app.get("/", include_in_schema=False)
    async def index(request: Request) -> Response:
        serving = request.scope.get("extensions", {}).get(SERVING)
        here = for_operators if serving is not None and serving.for_operators else public
        return here.answer(request.headers.get("accept", ""))


def _row(name: str, address: str) -> str:
    english, korean = map(escape, SAYS[name])
    return f'<li><a href="{address}">/{address}</a><span>{english}</span><span lang="ko">{korean}</span></li>'
