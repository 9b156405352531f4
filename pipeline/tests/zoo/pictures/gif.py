"""GIF: tables of colours, transparency, frames that do not fill the screen."""

import struct

from . import base
from .png import palette

W, H = base.W, base.H


def lzw(indices):
    """Codes of nine bits with a clear code before the table grows: long but legal."""
    bits, out, acc, n = 9, bytearray(), 0, 0
    codes = []
    for i, v in enumerate(indices):
        if i % 250 == 0:
            codes.append(256)
        codes.append(int(v))
    codes.append(257)
    for c in codes:
        acc |= c << n
        n += bits
        while n >= 8:
            out.append(acc & 255)
            acc >>= 8
            n -= 8
    if n:
        out.append(acc & 255)
    blocks = b"".join(bytes([len(out[i : i + 255])]) + bytes(out[i : i + 255]) for i in range(0, len(out), 255))
    return b"\x08" + blocks + b"\0"


def frame(values, x=0, y=0, table=None, transparent=None, disposal=0, interlaced=False):
    h, w = values.shape
    control = b""
    if transparent is not None or disposal:
        control = b"\x21\xf9\x04" + bytes([(disposal << 2) | (transparent is not None), 10, 0, transparent or 0]) + b"\0"
    rows = list(range(h))
    if interlaced:
        rows = [r for start, step in ((0, 8), (4, 8), (2, 4), (1, 2)) for r in range(start, h, step)]
    flags = (0x87 if table else 0) | (0x40 if interlaced else 0)
    return control + b"\x2c" + struct.pack("<HHHHB", x, y, w, h, flags) + (table or b"") + lzw(values[rows].ravel())


def gif(*frames, table=True, background=0, end=True):
    head = b"GIF89a" + struct.pack("<HHBBB", W, H, 0xF7 if table else 0x70, background, 0)
    return head + (palette(256) if table else b"") + b"".join(frames) + (b";" if end else b"")


def zoo():
    values = base.grey()
    other = palette(256)[::-1]
    yield "global_table.gif", gif(frame(values))
    yield "local_table.gif", gif(frame(values, table=other))
    yield "only_local_table.gif", gif(frame(values, table=other), table=False)
    yield "no_table.gif", gif(frame(values), table=False)
    yield "transparent.gif", gif(frame(values, transparent=int(values[0, 0])))
    yield "transparent_background.gif", gif(frame(values, transparent=int(values[0, 0])), background=200)
    yield "interlaced.gif", gif(frame(values, interlaced=True))
    part = values[4:24, 6:30]
    yield "frame_inside.gif", gif(frame(part, 6, 4))
    yield "frame_inside_background.gif", gif(frame(part, 6, 4), background=77)
    yield "frame_inside_transparent.gif", gif(frame(part, 6, 4, transparent=90))
    yield "frame_inside_transparent_background.gif", gif(frame(part, 6, 4, transparent=90), background=77)
    yield "frame_inside_local.gif", gif(frame(part, 6, 4, table=other), background=77)
    yield "frame_over_the_edge.gif", gif(frame(values, 10, 8))
    yield "two_frames.gif", gif(frame(values), frame(255 - values))
    yield "two_frames_disposed.gif", gif(frame(values, disposal=2), frame(255 - values))
    yield "first_frame_small_second_full.gif", gif(frame(part, 6, 4), frame(255 - values))
    yield "comment.gif", gif(b"\x21\xfe\x05hello\0", frame(values))
    yield "no_trailer.gif", gif(frame(values), end=False)
    yield "xmp.gif", gif(b"\x21\xff\x0bXMP DataXMP" + base.xmp() + b"\x01" + bytes(range(255, -1, -1)) + b"\0", frame(values))
