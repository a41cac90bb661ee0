"""The `/docs` page, with assets from an installed package: the page opens no connection but to this gateway.

For:      people who want to try a call in the browser.
Touches:  files of the package that carries the assets.
"""

from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.responses import HTMLResponse
from starlette.staticfiles import StaticFiles

from .openapi import add_hot_routes

ASSETS: Final = ("fastapi_offline", "static")  # the package, and its folder, that swagger-ui's files come in
POLICY: Final = (
    "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; img-src 'self' data:"
)


def add_docs(app: FastAPI) -> None:
    """Serve `/docs` and put the hot routes into `/openapi.json`."""
    describe = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = add_hot_routes(describe())
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # the extension point that FastAPI documents
    app.mount("/docs/assets", StaticFiles(packages=[ASSETS]), name="docs assets")

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        page = get_swagger_ui_html(
            openapi_url="openapi.json",  # all addresses are relative, for gateways behind a path prefix
            title=app.title,
            swagger_js_url="docs/assets/swagger-ui-bundle.js",
            swagger_css_url="docs/assets/swagger-ui.css",
            swagger_favicon_url="docs/assets/favicon.png",
            swagger_ui_parameters={"validatorUrl": None},
        )
        page.headers["content-security-policy"] = POLICY  # the browser holds the page to its word
        return page
