"""What a request is called: the caller's name for it if that is fit to be logged, else one of ours."""

import itertools
import os
import re
from collections.abc import Callable, Mapping
from typing import Final

HEADER: Final = b"x-request-id"

_FIT: Final = re.compile(rb"[\w.-]{1,128}")


def request_id_of(fields: Mapping[bytes, bytes], new_id: Callable[[], str]) -> str:
    """`fields` are the request's headers by name."""
    given = fields.get(HEADER)
    return given.decode("ascii") if given is not None and _FIT.fullmatch(given) else new_id()


def id_source() -> Callable[[], str]:
    """Makes ids of a random part for this process and a running number."""
    prefix = f"req_{os.urandom(8).hex()}"
    numbers = itertools.count(1)
    return lambda: f"{prefix}{next(numbers):08x}"
