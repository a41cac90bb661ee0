"""Which route a model name leads to."""

from nexus_gateway.core.errors import ModelNotFound
from nexus_gateway.core.routing import Route, RouteTable


class Routes:
    """The names that callers may use."""

    def __init__(self, table: RouteTable) -> None:
        self._table = table

    @property
    def models(self) -> tuple[str, ...]:
        return tuple(self._table.routes)

    def find(self, model: str) -> Route:
        """Raises ModelNotFound."""
        route = self._table.find(model)
        if route is None:
            raise ModelNotFound(
                f"The model '{model[:128]}' does not exist or you do not have access to it.", param="model"
            )
        return route
