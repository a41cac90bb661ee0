"""The `/docs` page, with assets from an installed package: the page opens no connection but to this gateway.

For:      people who want to try a call in the browser.
Touches:  files of the package that carries the assets.
"""

from typing import Any

from fastapi import FastAPI

from .openapi import add_hot_routes


def add_docs(app: FastAPI) -> None:
    """Serve `/docs` and put the hot routes into `/openapi.json`."""
    describe = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = add_hot_routes(describe())
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # the extension point that FastAPI documents
