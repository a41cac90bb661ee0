"""Entry point for any ASGI server: `uvicorn app.main:app`. In production use `nexus-gateway serve`."""

from nexus_gateway.app import create_app

app = create_app()
