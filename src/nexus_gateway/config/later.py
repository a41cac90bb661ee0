"""The one list of what is read and checked already but does not work yet.

For:      refusing it with a clear word instead of ignoring it. When a capability arrives, its rows go.
"""

from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Final

SETTINGS: Final[Mapping[str, Collection[object]]] = MappingProxyType(
    {  # setting: the values that mean "off", which may be given already; the first one holds until the row goes
        "audit_bodies": ("none",),
    }
)

SCHEMES: Final = ("litellm",)  # of GATEWAY_UPSTREAMS

NOT_YET: Final = "This is not supported yet."
