"""ModelStreamInferResponse around a reply's wire bytes, which are not looked at."""

from google.protobuf.message import DecodeError

from service.pb import open_inference_pb2 as pb

_NUMBER = pb.ModelStreamInferResponse.INFER_RESPONSE_FIELD_NUMBER
LENGTH_DELIMITED = 2
REPLY_TAG = bytes([_NUMBER << 3 | LENGTH_DELIMITED])
# By this parameter clients of Triton know the last response to a request of a stream; here each is the only one.
FINAL_PARAMETER = "triton_final_response"
FINAL = pb.ModelInferResponse(parameters={FINAL_PARAMETER: pb.InferParameter(bool_param=True)}).SerializeToString()


def encode_stream_reply(reply: bytes) -> bytes:
    """A ModelInferResponse as an answer on a stream."""
    return b"".join((REPLY_TAG, _encode_varint(len(FINAL) + len(reply)), FINAL, reply))


def encode_stream_failure(message: bytes, text: str) -> bytes:
    """Why a request failed, with its id, if it can be read."""
    failure = pb.ModelStreamInferResponse(error_message=text)
    failure.infer_response.id = _read_id(message)
    failure.infer_response.parameters[FINAL_PARAMETER].bool_param = True
    return failure.SerializeToString()


def _read_id(message: bytes) -> str:
    try:
        return pb.ModelInferRequest.FromString(message).id
    except DecodeError:
        return ""


def _encode_varint(number: int) -> bytes:
    groups = bytearray()
    while number > 127:
        groups.append(number & 127 | 128)
        number >>= 7
    groups.append(number)
    return bytes(groups)
