"""The picture that all others are made of, and EXIF blocks."""

import struct

import numpy as np
from PIL import Image

W, H = 40, 28


def rgb(width=W, height=H):
    """Two ramps and a bright corner: no symmetry, all hues, smooth enough for JPEG."""
    y, x = np.mgrid[0:height, 0:width]
    a = np.zeros((height, width, 3), np.uint8)
    a[..., 0] = x * 255 // (width - 1)
    a[..., 1] = y * 255 // (height - 1)
    a[: height // 3, : width // 3, 2] = 220
    a[..., 2] += 20
    return a


def grey():
    return np.asarray(Image.fromarray(rgb()).convert("L"))


def alpha():
    """Empty in a corner, full at the other end, everything between."""
    y, x = np.mgrid[0:H, 0:W]
    return np.clip((x + y) * 5 - 40, 0, 255).astype(np.uint8)


def rgba():
    return np.dstack([rgb(), alpha()])


SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 11: 4, 12: 8, 16: 8}


def entry(order, tag, kind, count, value):
    """One IFD entry whose value stands in its four bytes."""
    form = {1: "B", 2: "B", 3: "H", 4: "I", 6: "b", 7: "B", 8: "h", 9: "i", 11: "f"}[kind]
    values = value if isinstance(value, (list, tuple)) else [value]
    packed = struct.pack(order + form * len(values), *values)
    return struct.pack(order + "HHI", tag, kind, count) + (packed + bytes(4))[:4]


def exif(order, *entries, second=None, gap=b""):
    """A TIFF block with these entries in its first directory; `second` are those of the next one."""
    at = 8 + len(gap)
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", at) + gap
    size = 2 + 12 * len(entries) + 4
    first = struct.pack(order + "H", len(entries)) + b"".join(entries)
    first += struct.pack(order + "I", 0 if second is None else at + size)
    rest = b"" if second is None else struct.pack(order + "H", len(second)) + b"".join(second) + bytes(4)
    return head + first + rest


def orientation(order, kind, value, count=1):
    return exif(order, entry(order, 0x112, kind, count, value))


def orientations():
    """EXIF blocks of every way that an orientation is written."""
    kinds = {"byte": 1, "short": 3, "long": 4, "sbyte": 6, "undefined": 7, "sshort": 8, "slong": 9, "ascii": 2, "float": 11}
    for order, o in (("<", "le"), (">", "be")):
        for name, kind in kinds.items():
            yield f"{name}_{o}", orientation(order, kind, 6)
        yield f"two_shorts_{o}", orientation(order, 3, [6, 3], 2)
        yield f"two_bytes_{o}", orientation(order, 1, [6, 3], 2)
        yield f"no_values_{o}", orientation(order, 3, 6, 0)
        # Three shorts do not fit: the entry holds where they stand.
        far = struct.pack(order + "HHII", 0x112, 3, 3, 26)
        yield f"three_shorts_{o}", exif(order, far) + struct.pack(order + "HHH", 6, 1, 1)
        yield f"long_out_of_range_{o}", orientation(order, 4, 65536 + 6)
        yield f"rational_{o}", exif(order, struct.pack(order + "HHII", 0x112, 5, 1, 26)) + struct.pack(order + "II", 6, 1)
    le = "<"
    for value in range(0, 10):
        yield f"value_{value}", orientation(le, 3, value)
    yield "value_262", orientation(le, 3, 262)
    yield "only_in_second_directory", exif(le, entry(le, 0x100, 4, 1, 7), second=[entry(le, 0x112, 3, 1, 6)])
    yield "differs_in_second_directory", exif(le, entry(le, 0x112, 3, 1, 6), second=[entry(le, 0x112, 3, 1, 3)])
    yield "twice", exif(le, entry(le, 0x112, 3, 1, 6), entry(le, 0x112, 3, 1, 3))
    yield "behind_others", exif(">", entry(">", 0x10F, 2, 4, [65, 66, 67, 0]), entry(">", 0x112, 3, 1, 8), entry(">", 0x128, 3, 1, 2))
    yield "directory_elsewhere", exif(le, entry(le, 0x112, 3, 1, 6), gap=bytes(20))
    yield "directory_outside", b"II*\0" + struct.pack("<I", 900) + bytes(30)
    yield "cut", orientation(le, 3, 6)[:16]
    yield "more_entries_than_there_are", b"II*\0\x08\0\0\0" + struct.pack("<H", 200) + entry(le, 0x112, 3, 1, 6)
    yield "wrong_magic", b"II+\0" + orientation(le, 3, 6)[4:]


def xmp(tag=6, element=False):
    """An XMP packet that turns the picture."""
    inside = f"><tiff:Orientation>{tag}</tiff:Orientation></rdf:Description>" if element else f' tiff:Orientation="{tag}"/>'
    return (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        f'<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/"{inside}</rdf:RDF></x:xmpmeta>'
    ).encode()
