"""How much a file may claim: beyond these it is refused before anything is made of the claim.

They lie far above what microscopes write, and low enough that a file of a few kilobytes cannot
take the machine's memory or hours of its time. docs/lab/limits.md lists them for people.
"""

from __future__ import annotations

from contextlib import suppress

from cellseg.errors import InputError

WHOLE_BYTES = 1_500_000_000
"""What may be decoded at once, where the user did not give the process more or less memory: all
of it then stays below 2 GB, with Python and its libraries."""

WHOLE_SAID_BYTES = 500_000_000
"""From here on the memory of what is decoded at once is worth a word."""

MAX_PX = 100_000_000_000  # Pixels of a plane: a glass slide of 75 × 25 mm at 0.14 µm per pixel.
MAX_SIDE_PX = 4_000_000  # Of a plane's longer side, px.
MAX_CHANNELS = 512  # Channels, or samples of a pixel.
MAX_PLANES = 1_000_000  # Planes of z, t and channels together, over all images of a file.
MAX_AXES = 16  # Dimensions of an array.
MAX_LEVELS = 64  # Of a pyramid.
SMALL_CHUNK_PX, MAX_SMALL_CHUNKS = 256, 20_000
"""Chunks (tiles, strips) of fewer pixels than the one are read one by one up to the other."""

MAX_REUSE = 8
"""How often over a file's bytes may serve as tiles, on average: many tiles may share one place."""

MAX_METADATA_BYTES = 64_000_000  # Of one JSON or XML document.
SPARE_BYTES = 1_000_000  # What a packed or an unpacked chunk may take beyond twice its pixels.


def chunk_limit(n_bytes: int) -> int:
    """The most bytes that a chunk of ``n_bytes`` of pixels may take, packed or half unpacked."""
    return 2 * n_bytes + SPARE_BYTES


def check_count(name: str, what: str, count: int, limit: int) -> None:
    """Refuse a claim beyond a limit."""
    if count > limit:
        raise InputError(
            f"{name}: claims {_short(count)} {what}; at most {limit:,} are read "
            "(damaged, or made to overload)"
        )


def check_plane(name: str, height: int, width: int, chunk: tuple[int, int]) -> None:
    """Refuse a plane (px) that is too large or in too many pieces, ``chunk`` decoded at once."""
    check_count(name, f"pixels ({_short(height)} × {_short(width)})", height * width, MAX_PX)
    check_count(name, "pixels along a side", max(height, width), MAX_SIDE_PX)
    chunk_px = min(chunk[0], height) * min(chunk[1], width)
    if chunk_px < SMALL_CHUNK_PX:
        chunks = -(-height // max(1, chunk[0])) * -(-width // max(1, chunk[1]))
        check_count(name, f"tiles of {chunk_px} px", chunks, MAX_SMALL_CHUNKS)


def check_whole(name: str, what: str, n_bytes: int) -> list[str]:
    """Refuse to decode at once what does not fit; a note of what it costs, where that is much.

    ``what`` is the piece, such as ``"the image"``; ``n_bytes`` is all that decoding it takes.
    """
    limit = WHOLE_BYTES
    with suppress(ImportError, OSError):
        import resource

        given = resource.getrlimit(resource.RLIMIT_DATA)[0]
        limit = given // 2 if given > 0 else limit
    if n_bytes > limit:
        raise InputError(
            f"{name}: {what} can only be decoded whole, which takes {n_bytes / 1e9:,.1f} GB of "
            f"memory, more than the {limit / 1e9:.1f} GB that may be used; allow more memory, or "
            "convert the file to a tiled TIFF",
            hint="max_memory",
        )
    if n_bytes < WHOLE_SAID_BYTES:
        return []
    return [f"decoded whole: {n_bytes / 1e9:.1f} GB of memory while it is open"]


def _short(count: int) -> str:
    return f"{count:,}" if count < 10**15 else f"{float(min(count, 10**300)):.0e}"
