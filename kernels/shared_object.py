"""What a shared library asks the loader for: the NEEDED entries of an ELF file, read without loading it."""

import struct
from pathlib import Path

PT_LOAD, PT_DYNAMIC = 1, 2
DT_NULL, DT_NEEDED, DT_STRTAB = 0, 1, 5
MAX_NAME_BYTES = 256


def read_needed(path: Path) -> list[str]:
    """Names of the libraries that a 64-bit little-endian one needs, in its order; ValueError for another file."""
    with path.open("rb") as file:
        header = file.read(64)
        if len(header) < 64 or header[:6] != b"\x7fELF\x02\x01":
            raise ValueError(f"{path} is no 64-bit little-endian ELF file")
        segments = _read_segments(file, header)
        entries = _read_dynamic(file, segments)
        strings = next(value for tag, value in entries if tag == DT_STRTAB)
        return [_read_name(file, _locate(segments, strings) + value) for tag, value in entries if tag == DT_NEEDED]


def _read_segments(file, header):
    """(type, offset in the file, address, size in the file) of every segment."""
    (start,) = struct.unpack_from("<Q", header, 32)
    size, count = struct.unpack_from("<HH", header, 54)
    file.seek(start)
    table = file.read(size * count)
    rows = [struct.unpack_from("<IIQQQQ", table, index * size) for index in range(count)]
    return [(kind, offset, address, file_size) for kind, _, offset, address, _, file_size in rows]


def _read_dynamic(file, segments):
    found = [(offset, size) for kind, offset, _, size in segments if kind == PT_DYNAMIC]
    if not found:
        raise ValueError(f"{file.name} has no dynamic section")
    file.seek(found[0][0])
    content = file.read(found[0][1])
    entries = list(struct.iter_unpack("<qQ", content[: len(content) // 16 * 16]))
    end = next((index for index, (tag, _) in enumerate(entries) if tag == DT_NULL), len(entries))
    return entries[:end]


def _locate(segments, address):
    """Where in the file lies what is loaded to an address."""
    for kind, offset, start, size in segments:
        if kind == PT_LOAD and start <= address < start + size:
            return offset + address - start
    raise ValueError(f"no segment holds the address {address:#x}")


def _read_name(file, offset):
    file.seek(offset)
    return file.read(MAX_NAME_BYTES).partition(b"\0")[0].decode()
