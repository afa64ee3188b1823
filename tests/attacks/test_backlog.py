"""More messages than are taken at a time: they wait in their stream's window."""

from tests.attacks.attacked_server import STREAM_PATH
from tests.http2_frames import LARGEST_WINDOW, encode_message

FRAMES, MESSAGES_A_FRAME = 40, 3276


def test_stream_of_tiny_messages_in_large_frames_is_answered_to_the_end(attack):
    """No byte is given back to its window twice, nor moved again for each message before it."""
    server = attack()
    frame = encode_message(b"") * MESSAGES_A_FRAME
    with server.connect(window=LARGEST_WINDOW) as connection:
        connection.acknowledge_settings()  # before, a stream has a window of 64 KiB
        stream = connection.open_call(_path=STREAM_PATH)
        started = server.processor_s()
        for number in range(FRAMES):
            connection.send_data(stream, frame, ends=number == FRAMES - 1, frame_bytes=len(frame))
        reply = connection.await_reply(stream)
        assert reply.status == 0
        assert count_messages(reply.data) == FRAMES * MESSAGES_A_FRAME
        assert server.processor_s() - started < 5.0


def count_messages(content):
    """How many messages there are, by their prefixes."""
    count = place = 0
    while place < len(content):
        place += 5 + int.from_bytes(content[place + 1 : place + 5], "big")
        count += 1
    assert place == len(content)
    return count
