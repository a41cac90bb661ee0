"""The `/docs` page, with assets from an installed package: the page opens no connection but to this gateway.

For:      people who want to try a call in the browser.
Touches:  files of the package `fastapi-offline`, which carries Swagger UI; nothing else of it is used.
"""

from importlib.resources import files
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse
from starlette.staticfiles import StaticFiles

from .openapi import add_hot_routes

ASSETS: Final = "/docs/assets"


def add_docs(app: FastAPI) -> None:
    """Serve `/docs` and put the hot routes into `/openapi.json`."""
    app.mount(ASSETS, StaticFiles(directory=str(files("fastapi_offline") / "static")), name="docs assets")

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return get_swagger_ui_html(
            openapi_url="/openapi.json",
            title=app.title,
            swagger_js_url=f"{ASSETS}/swagger-ui-bundle.js",
            swagger_css_url=f"{ASSETS}/swagger-ui.css",
            swagger_favicon_url=f"{ASSETS}/favicon.png",
        )

    describe = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = add_hot_routes(describe())
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # the extension point that FastAPI documents
