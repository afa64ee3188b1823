"""Connections, calls and bytes of the native transport."""

from collections.abc import Mapping

from service.exposition import Family

# Each with its kind, its meaning, and the transport's name of the number.
METRICS = {
    "sluice_connections": ("gauge", "Open connections", "connections"),
    "sluice_connections_total": ("counter", "Connections that were accepted", "connections_begun"),
    "sluice_calls": ("gauge", "Open calls, streams among them", "calls_open"),
    "sluice_calls_total": ("counter", "Calls that were begun", "calls_begun"),
    "sluice_received_bytes_total": ("counter", "Bytes of HTTP/2 that were received", "received_bytes"),
    "sluice_sent_bytes_total": ("counter", "Bytes of HTTP/2 that were sent", "sent_bytes"),
    "sluice_buffered_bytes": ("gauge", "Bytes of requests and replies that the transport holds", "buffered_bytes"),
}


def describe_transport(traffic: Mapping[str, int]) -> list[Family]:
    """The families; none for a transport that counts nothing."""
    families = []
    for name, (kind, meaning, number) in METRICS.items():
        if number in traffic:
            families.append(Family(name, kind, meaning))
            families[-1].add(traffic[number])
    return families
