"""The load benchmark: what a request costs through the gateway, against the same request without it.

For:      `make bench`. Three processes: a mock model server, the load, the gateway; this one only starts them.
Touches:  loopback sockets and, on Linux, /proc and the processes' core.
"""
