"""Nexus Gateway: one OpenAI-compatible address in front of many language model servers."""

from typing import Final

__version__: Final = "0.1.0"
