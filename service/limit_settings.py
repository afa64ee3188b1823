"""The settings that say what the native transport allows its peers: kernels.limits.Limits, by name and default.

Written out, since help must come without loading a kernel.
"""

from dataclasses import dataclass, field

from service.setting_checks import about, between

_times = between(0, 365 * 24 * 3600)
_bytes = between(1024, 2**63 - 1)


@dataclass(frozen=True, kw_only=True)
class LimitSettings:
    """A part of the table of settings; times in seconds, where 0 is without limit. grpcio's transport has its own."""

    max_connections: int = field(
        default=16384,
        metadata=about("Connections that are open at a time; one more is closed at once.", between(1, 2**20)),
    )
    max_streams: int = field(
        default=1024,
        metadata=about("Calls at a time on one connection; one more is refused.", between(1, 2**31 - 1)),
    )
    max_header_bytes: int = field(
        default=16384,
        metadata=about(
            "Bytes of a call's headers, with 32 more for each field; beyond is RESOURCE_EXHAUSTED.",
            between(1024, 128 * 1024),
        ),
    )
    max_header_fields: int = field(
        default=128,
        metadata=about("Fields of a call's headers; one more is RESOURCE_EXHAUSTED.", between(16, 4096)),
    )
    max_connection_bytes: int = field(
        default=256 * 1024 * 1024,
        metadata=about(
            "Bytes of messages that one connection receives or is sent; a call beyond is RESOURCE_EXHAUSTED.", _bytes
        ),
    )
    max_buffered_bytes: int = field(
        default=1024**3,
        metadata=about("The same of all connections together.", _bytes),
    )
    handshake_timeout_s: float = field(
        default=10.0,
        metadata=about("Seconds from a connection's start to the end of TLS's and HTTP/2's first exchange.", _times),
    )
    header_timeout_s: float = field(
        default=10.0,
        metadata=about("Seconds from the first to the last byte of a call's headers.", _times),
    )
    receive_timeout_s: float = field(
        default=60.0,
        metadata=about("Seconds without a byte of a message that must come: DEADLINE_EXCEEDED.", _times),
    )
    send_timeout_s: float = field(
        default=60.0,
        metadata=about("Seconds without a byte taken of replies that wait, until they are given up.", _times),
    )
    idle_timeout_s: float = field(
        default=0.0,
        metadata=about("Seconds without a call until a connection is closed; 0 is never.", _times),
    )
    keepalive_time_s: float = field(
        default=60.0,
        metadata=about("Seconds without a byte from a peer until it is pinged; 0 is never.", _times),
    )
    keepalive_timeout_s: float = field(
        default=20.0,
        metadata=about("Seconds that a peer which was pinged may then stay silent.", _times),
    )
    max_connection_age_s: float = field(
        default=0.0,
        metadata=about("Seconds until a connection is told to go; 0 is never.", _times),
    )
    max_connection_age_grace_s: float = field(
        default=0.0,
        metadata=about("Seconds from then until it is closed, calls or not; 0 is never.", _times),
    )
    max_idle_frames_per_s: int = field(
        default=1000,
        metadata=about(
            "Frames a second that bring nothing (PING and the like) from a connection that is sent nothing.",
            between(10, 10**6),
        ),
    )
    max_resets_per_s: int = field(
        default=1000,
        metadata=about("Calls a second that a connection may break off, on average over ten.", between(1, 10**6)),
    )
