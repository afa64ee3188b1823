"""What the native transport allows its peers; every number can be set."""

from dataclasses import dataclass

NEVER = 0


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits of a server; times in seconds, where 0 is without limit.

    Parameters
    ----------
    max_connections
        Open at a time; one more is closed at once.
    max_streams
        Calls at a time on one connection; one more is refused with REFUSED_STREAM, which clients may send again, and
        ends the connection of a client that has acknowledged the limit.
    max_header_bytes, max_header_fields
        Of one call, names and values and 32 bytes for each field; more is RESOURCE_EXHAUSTED, and a call with many
        times as much is reset.
    max_message_bytes
        Of one message in either direction, after decompression; more is RESOURCE_EXHAUSTED.
    max_connection_bytes, max_buffered_bytes
        Of messages that are being received or sent, on one connection and in all; a call beyond is RESOURCE_EXHAUSTED.
        Messages of up to 256 bytes are taken all the same.
    handshake_timeout_s
        From the connection's start to the end of TLS's and HTTP/2's first exchange.
    header_timeout_s
        From the first to the last byte of a call's headers.
    receive_timeout_s
        Without a byte of a message that has begun, or that a unary method waits for: DEADLINE_EXCEEDED.
    send_timeout_s
        Without a byte that the peer takes, while replies wait: the call is reset where its window or that of its
        connection is shut, and the connection closed where its socket is full.
    idle_timeout_s
        Without a call: the connection is closed.
    keepalive_time_s, keepalive_timeout_s
        Without a byte from the peer until it is pinged, and then until the connection is closed.
    max_connection_age_s, max_connection_age_grace_s
        Until the connection is told to go, and then until it is closed.
    max_idle_frames_per_s
        PING, SETTINGS, PRIORITY, WINDOW_UPDATE and empty DATA frames of one connection while it is sent no HEADERS and
        no DATA; beyond it is closed with ENHANCE_YOUR_CALM.
    max_resets_per_s
        Calls that a connection may reset, make the server reset or open beyond max_streams, on average over ten
        seconds; beyond it is closed with ENHANCE_YOUR_CALM.
    """

    max_connections: int = 16384
    max_streams: int = 1024
    max_header_bytes: int = 16384
    max_header_fields: int = 128
    max_message_bytes: int = 64 * 1024 * 1024
    max_connection_bytes: int = 256 * 1024 * 1024
    max_buffered_bytes: int = 1024**3
    handshake_timeout_s: float = 10.0
    header_timeout_s: float = 10.0
    receive_timeout_s: float = 60.0
    send_timeout_s: float = 60.0
    idle_timeout_s: float = NEVER
    keepalive_time_s: float = 60.0
    keepalive_timeout_s: float = 20.0
    max_connection_age_s: float = NEVER
    max_connection_age_grace_s: float = NEVER
    max_idle_frames_per_s: int = 1000
    max_resets_per_s: int = 1000
