"""WebP: lossy, lossless, alpha, animation, EXIF and XMP chunks."""

import io
import struct

import numpy as np
from PIL import Image

from . import base
from .jpeg import swapped_profile


def save(image, **how):
    out = io.BytesIO()
    Image.fromarray(image).save(out, "WEBP", **how)
    return out.getvalue()


def chunks(data):
    at, found = 12, []
    while at < len(data):
        n = struct.unpack("<I", data[at + 4 : at + 8])[0]
        found.append((data[at : at + 4], data[at + 8 : at + 8 + n]))
        at += 8 + n + (n & 1)
    return found


def join(found):
    body = b"WEBP" + b"".join(name + struct.pack("<I", len(s)) + s + bytes(len(s) & 1) for name, s in found)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def extended(data, *extra, flags=None):
    """With a VP8X header and further chunks behind the picture; `flags` says that they are there."""
    found = [c for c in chunks(data) if c[0] != b"VP8X"]
    bits = {b"EXIF": 8, b"XMP ": 4, b"ICCP": 32, b"ALPH": 16}
    if flags is None:
        flags = sum({bits[name] for name, _ in list(extra) + found if name in bits})
    size = struct.pack("<I", base.W - 1)[:3] + struct.pack("<I", base.H - 1)[:3]
    first = [c for c in extra if c[0] == b"ICCP"]
    return join([(b"VP8X", struct.pack("<I", flags) + size)] + first + found + [c for c in extra if c[0] != b"ICCP"])


def zoo():
    rgb, rgba = base.rgb(), base.rgba()
    lossless = save(rgb, lossless=True)
    yield "lossy.webp", save(rgb, quality=90)
    yield "lossless.webp", lossless
    yield "lossy_alpha.webp", save(rgba, quality=90, exact=True)
    yield "lossless_alpha.webp", save(rgba, lossless=True, exact=True)
    yield "lossless_alpha_empty.webp", save(np.dstack([rgb, base.alpha() * 0]), lossless=True, exact=True)
    out = io.BytesIO()
    Image.fromarray(rgb).save(out, "WEBP", save_all=True, append_images=[Image.fromarray(255 - rgb)], duration=100, lossless=True)
    yield "animated.webp", out.getvalue()
    out = io.BytesIO()
    Image.fromarray(rgba).save(out, "WEBP", save_all=True, append_images=[Image.fromarray(255 - rgba)], duration=100, lossless=True, exact=True)
    yield "animated_alpha.webp", out.getvalue()
    yield "icc.webp", extended(lossless, (b"ICCP", swapped_profile()))
    for name, block in base.orientations():
        yield f"exif_{name}.webp", extended(lossless, (b"EXIF", block))
    six = base.orientation("<", 3, 6)
    yield "exif_prefixed.webp", extended(lossless, (b"EXIF", b"Exif\0\0" + six))
    yield "exif_lossy.webp", extended(save(rgb, quality=90), (b"EXIF", six))
    yield "exif_alpha.webp", extended(save(rgba, lossless=True, exact=True), (b"EXIF", six), flags=8 | 16)
    yield "exif_not_announced.webp", extended(lossless, (b"EXIF", six), flags=0)
    yield "exif_two_chunks.webp", extended(lossless, (b"EXIF", six), (b"EXIF", base.orientation("<", 3, 3)))
    yield "xmp.webp", extended(lossless, (b"XMP ", base.xmp()))
    yield "xmp_and_exif.webp", extended(lossless, (b"EXIF", six), (b"XMP ", base.xmp(8)))
    yield "behind_end.webp", lossless + b"rubbish!"
