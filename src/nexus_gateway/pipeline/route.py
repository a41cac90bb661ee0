"""Which upstream a model name leads to."""

from collections.abc import Sequence

from nexus_gateway.core.errors import ModelNotFound

from .endpoint import Endpoint


class Routes:
    """The names that callers may use. `default` takes every other name, if there is one."""

    def __init__(self, endpoints: Sequence[Endpoint], default: str | None) -> None:
        self._endpoints = {endpoint.name: endpoint for endpoint in endpoints}
        self._default = self._endpoints[default] if default is not None else None

    @property
    def models(self) -> tuple[str, ...]:
        return tuple(self._endpoints)

    def find(self, model: str) -> Endpoint:
        """Raises ModelNotFound."""
        endpoint = self._endpoints.get(model, self._default)
        if endpoint is None:
            raise ModelNotFound(
                f"The model '{model[:128]}' does not exist or you do not have access to it.", param="model"
            )
        return endpoint
