"""A tap on a connection in plain text: it passes everything on and shows the messages as they went by."""

import gzip
import socket
import struct
import threading
import zlib

from tests.free_ports import HOST
from tests.http2_frames import DATA, PREFACE
from tests.raw_http2 import connect

CHUNK_BYTES = 65536


class Tap:
    """Stands before a server and takes one connection, with one call; leaving it as a context closes it."""

    def __init__(self, address):
        self._upstream = address
        self._listener = socket.create_server((HOST, 0))
        self.address = f"{HOST}:{self._listener.getsockname()[1]}"
        self._sent, self._received = bytearray(), bytearray()
        self._thread = threading.Thread(target=self._serve, name="tap")

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        # Whoever still waits for a connection is told that none will come.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def _serve(self):
        try:
            client, _ = self._listener.accept()
        except OSError:
            return
        with client, connect(self._upstream) as server:
            back = threading.Thread(target=pass_on, args=(server, client, self._received))
            back.start()
            pass_on(client, server, self._sent)
            back.join()

    @property
    def requests(self):
        """The client's messages: whether each was compressed, and its bytes on the wire."""
        return split_messages(bytes(self._sent).removeprefix(PREFACE))

    @property
    def responses(self):
        """The server's messages, in the same way."""
        return split_messages(bytes(self._received))


def pass_on(source, target, seen):
    """Copy until one side hangs up."""
    try:
        while part := source.recv(CHUNK_BYTES):
            seen.extend(part)
            target.sendall(part)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        # Whoever hangs up without a word ends both ways.
        source.close()


def split_messages(frames):
    """The messages that HTTP/2 frames hold, if all are of one stream and none is padded."""
    content = b"".join(payload for kind, payload in split_frames(frames) if kind == DATA)
    messages = []
    while content:
        is_compressed, size = struct.unpack_from(">?I", content)
        messages.append((is_compressed, content[5 : 5 + size]))
        content = content[5 + size :]
    return messages


def split_frames(frames):
    """Each frame's kind and payload; one that is cut short is left out."""
    while len(frames) >= 9 and len(frames) >= 9 + (size := int.from_bytes(frames[:3], "big")):
        yield frames[3], frames[9 : 9 + size]
        frames = frames[9 + size :]


# What gRPC calls deflate is zlib's format.
DECOMPRESSORS = {"gzip": gzip.decompress, "deflate": zlib.decompress}
