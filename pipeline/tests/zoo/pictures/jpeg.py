"""JPEG: inks, colour spaces without their usual markers, and every way to write an orientation."""

import io
import struct

import numpy as np
from PIL import Image

from . import base


def save(image, **how):
    out = io.BytesIO()
    how = {"quality": 95, "subsampling": 0} | how
    Image.fromarray(image).save(out, "JPEG", **how) if isinstance(image, np.ndarray) else image.save(out, "JPEG", **how)
    return out.getvalue()


def segments(data):
    """(code, payload) of each marker segment up to the scan, then the rest."""
    at, found = 2, []
    while data[at + 1] != 0xDA:
        n = struct.unpack(">H", data[at + 2 : at + 4])[0]
        found.append((data[at + 1], data[at + 4 : at + 2 + n]))
        at += 2 + n
    return found, data[at:]


def join(found, rest):
    return b"\xff\xd8" + b"".join(b"\xff" + bytes([code]) + struct.pack(">H", len(s) + 2) + s for code, s in found) + rest


def without(data, *codes):
    found, rest = segments(data)
    return join([(c, s) for c, s in found if c not in codes], rest)


def put(data, code, payload, at=0):
    found, rest = segments(data)
    return join(found[:at] + [(code, payload)] + found[at:], rest)


def adobe(transform):
    return b"Adobe" + struct.pack(">HHHB", 100, 0, 0, transform)


def with_ids(data, ids):
    """Other names for the components, in the frame and in the scan."""
    found, rest = segments(data)
    for i, (code, s) in enumerate(found):
        if code in (0xC0, 0xC2):
            s = bytearray(s)
            for n, name in enumerate(ids):
                s[6 + 3 * n] = name
            found[i] = (code, bytes(s))
    rest = bytearray(rest)
    for n, name in enumerate(ids):
        rest[5 + 2 * n] = name
    return join(found, bytes(rest))


def inks():
    cmyk = np.asarray(Image.fromarray(base.rgb()).convert("CMYK")).copy()
    cmyk[..., 3] = 40
    return Image.fromarray(cmyk, "CMYK")


def zoo():
    rgb, grey = base.rgb(), base.grey()
    yield "plain_444.jpg", save(rgb)
    yield "plain_420.jpg", save(rgb, subsampling=2)
    yield "plain_422.jpg", save(rgb, subsampling=1)
    yield "progressive.jpg", save(rgb, progressive=True)
    yield "grey.jpg", save(grey)
    yield "restarts.jpg", save(rgb, restart_marker_blocks=2)
    twelve = bytearray(save(rgb))
    twelve[twelve.index(b"\xff\xc0") + 4] = 12
    yield "twelve_bits.jpg", bytes(twelve)

    cmyk = save(inks())
    yield "cmyk_adobe.jpg", cmyk
    yield "cmyk_no_marker.jpg", without(cmyk, 0xEE)
    yield "cmyk_no_marker_progressive.jpg", without(save(inks(), progressive=True), 0xEE)
    yield "cmyk_adobe_progressive.jpg", save(inks(), progressive=True)
    yield "cmyk_jfif_no_adobe.jpg", put(without(cmyk, 0xEE), 0xE0, b"JFIF\0\x01\x01\0\0\x01\0\x01\0\0")
    yield "cmyk_adobe_and_jfif.jpg", put(cmyk, 0xE0, b"JFIF\0\x01\x01\0\0\x01\0\x01\0\0")
    yield "ycck_adobe.jpg", put(without(cmyk, 0xEE), 0xEE, adobe(2))
    yield "ycck_420.jpg", put(without(save(inks(), subsampling=2), 0xEE), 0xEE, adobe(2))
    yield "cmyk_adobe_unknown_transform.jpg", put(without(cmyk, 0xEE), 0xEE, adobe(7))
    inverted = Image.fromarray(255 - np.asarray(inks()), "CMYK")
    yield "cmyk_inverted_adobe.jpg", save(inverted)
    yield "cmyk_inverted_no_marker.jpg", without(save(inverted), 0xEE)
    yield "cmyk_short_adobe_marker.jpg", put(without(cmyk, 0xEE), 0xEE, b"Adobe\0\x64")
    yield "cmyk_orientation.jpg", put(without(cmyk, 0xEE), 0xE1, b"Exif\0\0" + base.orientation("<", 4, 6))
    yield "cmyk_ids_named.jpg", with_ids(without(cmyk, 0xEE), b"CMYK")

    raw = save(rgb, keep_rgb=True)
    yield "rgb_adobe.jpg", raw
    bare = without(raw, 0xE0, 0xEE)
    yield "rgb_ids_no_marker.jpg", with_ids(bare, b"RGB")
    yield "rgb_ids_123_no_marker.jpg", with_ids(bare, [1, 2, 3])
    yield "rgb_ids_123_adobe.jpg", put(with_ids(bare, [1, 2, 3]), 0xEE, adobe(0))
    yield "rgb_ids_jfif.jpg", put(with_ids(bare, b"RGB"), 0xE0, b"JFIF\0\x01\x01\0\0\x01\0\x01\0\0")
    yield "rgb_ids_jfif_adobe.jpg", put(put(with_ids(bare, b"RGB"), 0xEE, adobe(0)), 0xE0, b"JFIF\0\x01\x01\0\0\x01\0\x01\0\0")
    yield "rgb_ids_lower_case.jpg", with_ids(bare, b"rgb")
    ycc = without(save(rgb), 0xE0)
    yield "ycc_ids_odd_no_marker.jpg", with_ids(ycc, [34, 35, 36])
    yield "ycc_ids_012_no_marker.jpg", with_ids(ycc, [0, 1, 2])
    yield "ycc_ids_rgb_adobe1.jpg", put(with_ids(ycc, b"RGB"), 0xEE, adobe(1))
    yield "ycc_adobe_unknown_transform.jpg", put(ycc, 0xEE, adobe(9))

    plain = save(rgb)
    for name, block in base.orientations():
        yield f"exif_{name}.jpg", put(plain, 0xE1, b"Exif\0\0" + block)
    six, three = base.orientation("<", 3, 6), base.orientation("<", 3, 3)
    yield "exif_after_frame.jpg", put(plain, 0xE1, b"Exif\0\0" + six, at=len(segments(plain)[0]))
    yield "exif_two_segments.jpg", put(put(plain, 0xE1, b"Exif\0\0" + six), 0xE1, b"Exif\0\0" + three)
    yield "exif_behind_xmp.jpg", put(put(plain, 0xE1, b"Exif\0\0" + six), 0xE1, b"http://ns.adobe.com/xap/1.0/\0<x/>")
    yield "exif_empty_then_real.jpg", put(put(plain, 0xE1, b"Exif\0\0" + six), 0xE1, b"Exif\0\0")
    yield "exif_split_in_two.jpg", put(put(plain, 0xE1, b"Exif\0\0" + six[18:]), 0xE1, b"Exif\0\0" + six[:18])
    yield "exif_prefix_twice.jpg", put(plain, 0xE1, b"Exif\0\0Exif\0\0" + six)
    yield "exif_odd_pad.jpg", put(plain, 0xE1, b"Exif\0\xff" + six)
    yield "exif_in_app3.jpg", put(plain, 0xE3, b"Exif\0\0" + six)
    yield "exif_big_tiff.jpg", put(plain, 0xE1, b"Exif\0\0" + b"II+\0\x08\0\0\0" + struct.pack("<QQHHQQQ", 16, 1, 0x112, 3, 1, 6, 0))
    packet = b"http://ns.adobe.com/xap/1.0/\0"
    yield "xmp_attribute.jpg", put(plain, 0xE1, packet + base.xmp())
    yield "xmp_element.jpg", put(plain, 0xE1, packet + base.xmp(element=True))
    yield "xmp_and_exif.jpg", put(put(plain, 0xE1, packet + base.xmp(8)), 0xE1, b"Exif\0\0" + six)
    yield "xmp_and_exif_upright.jpg", put(put(plain, 0xE1, packet + base.xmp(8)), 0xE1, b"Exif\0\0" + base.orientation("<", 3, 1))
    yield "xmp_and_exif_without.jpg", put(put(plain, 0xE1, packet + base.xmp(8)), 0xE1, b"Exif\0\0" + base.exif("<"))
    yield "xmp_out_of_range.jpg", put(plain, 0xE1, packet + base.xmp(9))
    yield "icc.jpg", put(plain, 0xE2, b"ICC_PROFILE\0\x01\x01" + swapped_profile())
    yield "trailing_bytes.jpg", plain + b"rubbish behind the picture" * 3
    yield "two_pictures.jpg", plain + save(255 - rgb)


def swapped_profile():
    """An ICC profile whose red and blue are exchanged: who applies it is seen at once."""
    from PIL import ImageCms

    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    data[24:36] = bytes(12)  # its date
    data[84:100] = bytes(16)  # its checksum
    r, b = data.index(b"rXYZ"), data.index(b"bXYZ")
    data[r : r + 4], data[b : b + 4] = data[b : b + 4], data[r : r + 4]
    return bytes(data)
