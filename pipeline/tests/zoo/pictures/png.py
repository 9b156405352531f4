"""PNG: bit depths, transparency of every kind, animation, missing ends, orientation in its own chunk."""

import struct
import zlib

import numpy as np

from . import base
from .jpeg import swapped_profile

H, W = base.H, base.W


def chunk(name, data=b""):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def pack_bits(values, bits):
    """Rows of values to rows of bytes, the first value in the highest bits."""
    out = []
    for row in values:
        per = 8 // bits
        row = list(row) + [0] * (-len(row) % per)
        out.append(bytes(sum(int(v) << (8 - bits * (i + 1)) for i, v in enumerate(row[at : at + per])) for at in range(0, len(row), per)))
    return out


def rows_of(pixels, depth):
    if depth < 8:
        return pack_bits(pixels, depth)
    return [np.ascontiguousarray(row).astype(">u2" if depth == 16 else np.uint8).tobytes() for row in pixels]


def data_of(pixels, depth, interlaced=False):
    if not interlaced:
        return zlib.compress(b"".join(b"\0" + r for r in rows_of(pixels, depth)), 9)
    raw = b""
    for x, y, dx, dy in ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)):
        part = pixels[y::dy, x::dx]
        if part.size:
            raw += b"".join(b"\0" + r for r in rows_of(part, depth))
    return zlib.compress(raw, 9)


def png(pixels, colour, depth, before=(), after=(), interlaced=False, end=True):
    h, w = pixels.shape[:2]
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", w, h, depth, colour, 0, 0, int(interlaced)))
    body = head + b"".join(before) + chunk(b"IDAT", data_of(pixels, depth, interlaced)) + b"".join(after)
    return b"\x89PNG\r\n\x1a\n" + body + (chunk(b"IEND") if end else b"")


def palette(n):
    """n colours, none grey."""
    return bytes(v for i in range(n) for v in ((i * 37 + 11) % 256, (i * 91 + 70) % 256, (i * 153 + 200) % 256))


def zoo():
    rgb, grey, alpha = base.rgb(), base.grey(), base.alpha()
    sixteen = lambda a: a.astype(np.uint16) * 257 - (a > 0) * 100  # high and low bytes differ
    for depth in (1, 2, 4):
        yield f"grey_{depth}.png", png(grey >> (8 - depth), 0, depth)
        yield f"palette_{depth}.png", png(grey >> (8 - depth), 3, depth, [chunk(b"PLTE", palette(1 << depth))])
    yield "grey_8.png", png(grey, 0, 8)
    yield "grey_16.png", png(sixteen(grey), 0, 16)
    yield "grey_alpha_8.png", png(np.dstack([grey, alpha]), 4, 8)
    yield "grey_alpha_16.png", png(sixteen(np.dstack([grey, alpha])), 4, 16)
    yield "rgb_8.png", png(rgb, 2, 8)
    yield "rgb_16.png", png(sixteen(rgb), 2, 16)
    yield "rgba_8.png", png(np.dstack([rgb, alpha]), 6, 8)
    yield "rgba_16.png", png(sixteen(np.dstack([rgb, alpha])), 6, 16)
    yield "rgba_empty.png", png(np.dstack([rgb, alpha * 0]), 6, 8)
    small = grey >> 3
    plte = chunk(b"PLTE", palette(32))
    yield "palette_8.png", png(small, 3, 8, [plte])
    yield "palette_trns.png", png(small, 3, 8, [plte, chunk(b"tRNS", bytes(range(0, 160, 5)))])
    yield "palette_trns_one.png", png(small, 3, 8, [plte, chunk(b"tRNS", bytes([255] * 9 + [0]))])
    yield "palette_trns_short.png", png(small, 3, 8, [plte, chunk(b"tRNS", b"\0\x80")])
    yield "palette_4_trns.png", png(grey >> 4, 3, 4, [chunk(b"PLTE", palette(16)), chunk(b"tRNS", bytes(range(0, 160, 10)))])
    yield "palette_index_outside.png", png(small, 3, 8, [chunk(b"PLTE", palette(20))])
    yield "palette_orientation.png", png(small, 3, 8, [plte, chunk(b"eXIf", base.orientation("<", 3, 8))])
    yield "grey_trns.png", png(grey, 0, 8, [chunk(b"tRNS", struct.pack(">H", int(grey[0, 0])))])
    yield "grey_1_trns.png", png(grey >> 7, 0, 1, [chunk(b"tRNS", struct.pack(">H", 1))])
    yield "grey_16_trns.png", png(sixteen(grey), 0, 16, [chunk(b"tRNS", struct.pack(">H", int(sixteen(grey)[0, 0])))])
    yield "rgb_trns.png", png(rgb, 2, 8, [chunk(b"tRNS", struct.pack(">HHH", *(int(v) for v in rgb[0, 0])))])
    yield "rgb_16_trns.png", png(sixteen(rgb), 2, 16, [chunk(b"tRNS", struct.pack(">HHH", *(int(v) for v in sixteen(rgb)[0, 0])))])
    yield "rgb_background.png", png(np.dstack([rgb, alpha]), 6, 8, [chunk(b"bKGD", struct.pack(">HHH", 255, 0, 255))])
    for name, pixels, colour, depth in (
        ("rgb", rgb, 2, 8), ("rgba", np.dstack([rgb, alpha]), 6, 8), ("grey_1", grey >> 7, 0, 1), ("grey_16", sixteen(grey), 0, 16)):
        yield f"interlaced_{name}.png", png(pixels, colour, depth, interlaced=True)
    yield "interlaced_palette_4.png", png(grey >> 4, 3, 4, [chunk(b"PLTE", palette(16))], interlaced=True)

    # The ends.
    yield "no_end.png", png(rgb, 2, 8, end=False)
    whole = png(rgb, 2, 8)
    yield "end_cut.png", whole[:-5]
    yield "end_without_checksum.png", whole[:-4]
    yield "no_end_rgba.png", png(np.dstack([rgb, alpha]), 6, 8, end=False)
    yield "no_end_interlaced.png", png(rgb, 2, 8, interlaced=True, end=False)
    yield "no_end_palette.png", png(small, 3, 8, [plte], end=False)
    yield "no_data_checksum.png", whole[:-16]
    yield "last_data_byte_missing.png", whole[:-17]
    yield "half_data.png", whole[: len(whole) // 2]
    yield "behind_end.png", whole + b"rubbish"
    yield "bad_end_checksum.png", whole[:-1] + b"\0"
    yield "bad_data_checksum.png", whole[:-13] + bytes([whole[-13] ^ 1]) + whole[-12:]
    yield "bad_text_checksum.png", png(rgb, 2, 8, [chunk(b"tEXt", b"Title\0x")[:-1] + b"\0"])
    split = data_of(rgb, 8)
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", W, H, 8, 2, 0, 0, 0))
    yield "many_data_chunks.png", b"\x89PNG\r\n\x1a\n" + head + b"".join(
        chunk(b"IDAT", split[i : i + 50]) for i in range(0, len(split), 50)) + chunk(b"IEND")
    extra = zlib.compress(b"".join(b"\0" + r for r in rows_of(rgb, 8)) + bytes(999), 9)
    yield "more_rows_than_promised.png", b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", extra) + chunk(b"IEND")

    # Colour management is nobody's.
    yield "gamma.png", png(rgb, 2, 8, [chunk(b"gAMA", struct.pack(">I", 100000))])
    yield "icc.png", png(rgb, 2, 8, [chunk(b"iCCP", b"x\0\0" + zlib.compress(swapped_profile(), 9))])
    yield "significant_bits.png", png(rgb, 2, 8, [chunk(b"sBIT", b"\5\6\5")])
    yield "cicp.png", png(rgb, 2, 8, [chunk(b"cICP", bytes([9, 16, 0, 1]))])

    # Animations: the first frame is the picture, or comes after it.
    control = chunk(b"acTL", struct.pack(">II", 2, 0))

    def frame(n, w=W, h=H, x=0, y=0):
        return chunk(b"fcTL", struct.pack(">IIIIIHHBB", n, w, h, x, y, 1, 10, 0, 0))

    other = chunk(b"fdAT", struct.pack(">I", 2) + data_of(255 - rgb, 8))
    yield "animated.png", png(rgb, 2, 8, [control, frame(0)], [frame(1), other])
    hidden = chunk(b"fdAT", struct.pack(">I", 1) + data_of(255 - rgb, 8))
    yield "animated_picture_apart.png", png(rgb, 2, 8, [chunk(b"acTL", struct.pack(">II", 1, 0))], [frame(0), hidden])

    # Orientation.
    for name, block in base.orientations():
        yield f"exif_{name}.png", png(rgb, 2, 8, [chunk(b"eXIf", block)])
    six = base.orientation(">", 3, 6)
    yield "exif_behind_data.png", png(rgb, 2, 8, after=[chunk(b"eXIf", six)])
    yield "exif_prefixed.png", png(rgb, 2, 8, [chunk(b"eXIf", b"Exif\0\0" + six)])
    yield "exif_rgba_16.png", png(sixteen(np.dstack([rgb, alpha])), 6, 16, [chunk(b"eXIf", six)])
    yield "exif_bad_checksum.png", png(rgb, 2, 8, [chunk(b"eXIf", six)[:-1] + b"\0"])
    raw = f"\nexif\n{len(six) + 6:8}\n".encode() + (b"Exif\0\0" + six).hex().encode() + b"\n"
    yield "raw_profile.png", png(rgb, 2, 8, [chunk(b"tEXt", b"Raw profile type exif\0" + raw)])
    yield "raw_profile_compressed.png", png(rgb, 2, 8, [chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(raw, 9))])
    yield "raw_profile_app1.png", png(rgb, 2, 8, [chunk(b"zTXt", b"Raw profile type APP1\0\0" + zlib.compress(raw, 9))])
    yield "xmp.png", png(rgb, 2, 8, [chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + base.xmp())])
    yield "xmp_compressed.png", png(rgb, 2, 8, [chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(base.xmp(), 9))])
    yield "xmp_and_exif.png", png(rgb, 2, 8, [chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + base.xmp(8)), chunk(b"eXIf", six)])
