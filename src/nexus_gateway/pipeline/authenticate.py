"""Who calls: the first step of the journey, before anything of the body is read."""

from collections.abc import Mapping

from nexus_gateway.core.credentials import KeyRing, read_credential
from nexus_gateway.core.model import Principal
from nexus_gateway.upstreams.base import Headers


class Authenticator:
    """Holds the accepted keys."""

    def __init__(self, keys: KeyRing) -> None:
        self._keys = keys

    def authenticate(self, headers: Headers, fields: Mapping[bytes, bytes]) -> Principal:
        """`fields` are the headers by name. Raises Unauthenticated."""
        return self._keys.find(read_credential(headers, fields))
