"""Windows bitmaps: headers of every age, masks, alphas that mean nothing, run lengths."""

import struct

import numpy as np

from . import base
from .png import pack_bits

H, W = base.H, base.W


def header(size, height, bits, compression, length, colours=0, masks=None):
    if size == 12:
        return struct.pack("<IHHHH", 12, W, height, 1, bits)
    head = struct.pack("<IiiHHIIiiII", size, W, height, 1, bits, compression, length, 2835, 2835, colours, 0)
    if masks is None:
        masks = (0, 0, 0, 0)
    if size == 40:
        return head + (struct.pack("<III", *masks[:3]) if compression == 3 else b"")
    if size == 52:
        return head + struct.pack("<III", *masks[:3])
    rest = head + struct.pack("<IIII", *masks)
    return rest + (b"BGRs" + bytes(size - len(rest) - 4) if size >= 108 else b"")


def bmp(rows, bits, size=40, compression=0, masks=None, table=b"", colours=0, top_down=False, data=None, gap=b""):
    body = data if data is not None else b"".join(r + bytes(-len(r) % 4) for r in (rows if top_down else rows[::-1]))
    head = header(size, -H if top_down else H, bits, compression, len(body), colours, masks) + table + gap
    return b"BM" + struct.pack("<IHHI", 14 + len(head) + len(body), 0, 0, 14 + len(head)) + head + body


def words(channels, masks, alpha, form):
    """Pixels packed by masks, values cut to their bits."""
    total = np.zeros((H, W), np.uint32)
    for values, mask in zip((*(channels[..., i] for i in range(3)), alpha), masks):
        if mask:
            shift = (mask & -mask).bit_length() - 1
            width = (mask >> shift).bit_length()
            v = values.astype(np.uint32)
            v = v >> (8 - width) if width <= 8 else v << (width - 8)
            total |= v << shift
    return [row.astype(form).tobytes() for row in total]


def rle8(values):
    out = bytearray()
    for row in values[::-1]:
        at = 0
        while at < W:
            n = 1
            while at + n < W and row[at + n] == row[at]:
                n += 1
            if n > 1 or at + 3 > W:
                out += bytes([n, row[at]])
                at += n
            else:
                take = min(5, W - at)
                out += bytes([0, take]) + bytes(int(v) for v in row[at : at + take]) + bytes(take & 1)
                at += take
        out += b"\0\0"
    return bytes(out) + b"\0\1"


def rle4(values):
    out = bytearray()
    for row in values[::-1]:
        for at in range(0, W, 8):
            part = [int(v) for v in row[at : at + 8]]
            out += bytes([0, 8]) + bytes((part[i] << 4) | part[i + 1] for i in range(0, 8, 2))
        out += b"\0\0"
    return bytes(out) + b"\0\1"


def table(n, size=4):
    return bytes(v for i in range(n) for v in ((i * 37 + 11) % 256, (i * 91 + 70) % 256, (i * 153 + 200) % 256, 0)[:size])


def zoo():
    rgb, grey, alpha = base.rgb(), base.grey(), base.alpha()
    zero, full = alpha * 0, alpha * 0 + 255
    bgr = [np.ascontiguousarray(r[:, ::-1]).tobytes() for r in rgb]
    usual = (0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    yield "rgb_24.bmp", bmp(bgr, 24)
    yield "top_down.bmp", bmp(bgr, 24, top_down=True)
    yield "core_header.bmp", bmp(bgr, 24, size=12)
    yield "v4_24.bmp", bmp(bgr, 24, size=108)
    yield "gap_before_pixels.bmp", bmp(bgr, 24, gap=bytes(11))
    for name, a in (("zero", zero), ("full", full), ("some", alpha)):
        rows = words(rgb, usual, a, "<u4")
        for size in (40, 56, 108, 124):
            yield f"plain_32_v{size}_alpha_{name}.bmp", bmp(rows, 32, size=size, masks=usual)
            if size > 40:
                yield f"masks_32_v{size}_alpha_{name}.bmp", bmp(rows, 32, size=size, compression=3, masks=usual)
        yield f"masks_32_v40_alpha_{name}.bmp", bmp(rows, 32, compression=3, masks=usual)
        yield f"masks_32_v124_no_alpha_mask_{name}.bmp", bmp(rows, 32, size=124, compression=3, masks=usual[:3] + (0,))
    yield "plain_32_v124_zero_top_down.bmp", bmp(words(rgb, usual, zero, "<u4"), 32, size=124, masks=usual, top_down=True)
    yield "masks_32_v124_zero_top_down.bmp", bmp(words(rgb, usual, zero, "<u4"), 32, size=124, compression=3, masks=usual, top_down=True)
    yield "masks_32_v52.bmp", bmp(words(rgb, usual, zero, "<u4"), 32, size=52, compression=3, masks=usual)
    for name, masks in (
        ("rgba", (0xFF, 0xFF00, 0xFF0000, 0xFF000000)),
        ("abgr", (0xFF000000, 0xFF0000, 0xFF00, 0xFF)),
        ("xbgr", (0xFF000000, 0xFF0000, 0xFF00, 0)),
        ("bgar", (0xFF000000, 0xFF00, 0xFF, 0xFF0000)),
        ("ten_bits", (0x3FF00000, 0xFFC00, 0x3FF, 0)),
        ("none", (0, 0, 0, 0)),
    ):
        data = bmp(words(rgb, usual if name == "none" else masks, alpha, "<u4"), 32, size=108, compression=3, masks=masks)
        yield (f"masks_32_{name}.bmp", data, rgb) if name == "ten_bits" else (f"masks_32_{name}.bmp", data)
    yield "alpha_bitfields.bmp", bmp(words(rgb, usual, alpha, "<u4"), 32, size=124, compression=6, masks=usual)
    for name, masks in (
        ("565", (0xF800, 0x7E0, 0x1F, 0)), ("555", (0x7C00, 0x3E0, 0x1F, 0)), ("444", (0xF00, 0xF0, 0xF, 0)), ("1555", (0x7C00, 0x3E0, 0x1F, 0x8000))):
        for size in (40, 124):
            data = bmp(words(rgb, masks, zero, "<u2"), 16, size=size, compression=3, masks=masks)
            yield (f"masks_16_{name}_v{size}.bmp", data, (rgb >> 4) * 17) if name == "444" else (f"masks_16_{name}_v{size}.bmp", data)
    yield "plain_16.bmp", bmp(words(rgb, (0x7C00, 0x3E0, 0x1F, 0), zero, "<u2"), 16)
    for bits in (1, 4, 8):
        n = 1 << bits
        rows = pack_bits(grey >> (8 - bits), bits)
        yield f"palette_{bits}.bmp", bmp(rows, bits, table=table(n))
        yield f"palette_{bits}_core.bmp", bmp(rows, bits, size=12, table=table(n, 3))
    yield "palette_8_v124.bmp", bmp(pack_bits(grey, 8), 8, size=124, table=table(256))
    yield "palette_8_few_colours.bmp", bmp(pack_bits(grey >> 3, 8), 8, table=table(32), colours=32)
    yield "palette_8_index_outside.bmp", bmp(pack_bits(grey >> 3, 8), 8, table=table(20), colours=20)
    yield "palette_8_grey.bmp", bmp(pack_bits(grey, 8), 8, table=bytes(v for i in range(256) for v in (i, i, i, 0)))
    yield "palette_1_white_first.bmp", bmp(pack_bits(grey >> 7, 1), 1, table=b"\xff\xff\xff\0\0\0\0\0")
    yield "palette_4_top_down.bmp", bmp(pack_bits(grey >> 4, 4), 4, table=table(16), top_down=True)
    yield "rle8.bmp", bmp(None, 8, compression=1, table=table(256), data=rle8(grey))
    yield "rle4.bmp", bmp(None, 4, compression=2, table=table(16), data=rle4(grey >> 4))
    short = rle8(grey)
    yield "rle8_cut.bmp", bmp(None, 8, compression=1, table=table(256), data=short[: len(short) // 2])
    yield "cut.bmp", bmp(bgr, 24)[:-400]
