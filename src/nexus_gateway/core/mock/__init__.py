"""The mock model: what `mock://` upstreams answer, decided without a clock or a network.

For:      a newcomer's first answer, demonstrations, and a reference of the wire for tests.
Touches:  nothing. The same request gives the same bytes, for ever.
"""
