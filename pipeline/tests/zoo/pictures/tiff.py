"""TIFF: every photometric, both byte orders, strips, tiles, planes, BigTIFF, orientation tags."""

import io
import struct
import zlib

import numpy as np
from PIL import Image

from . import base
from .jpeg import inks
from .png import pack_bits, palette

H, W = base.H, base.W
SHORT, LONG, LONG8 = 3, 4, 16


def tiff(parts, tags, order="<", big=False, second=b""):
    """`parts` are strips or tiles; `tags` map number to (type, values). Offsets and lengths are filled in."""
    tags = dict(tags)
    tiled = 322 in tags
    head = 16 if big else 8
    offsets, at = [], head
    for p in parts:
        offsets.append(at)
        at += len(p) + len(p) % 2
    tags[324 if tiled else 273] = (LONG, offsets)
    tags[325 if tiled else 279] = (LONG, [len(p) for p in parts])
    body = b"".join(p + bytes(len(p) % 2) for p in parts)
    start = head + len(body)
    width = 8 if big else 4
    fixed = (8 if big else 2) + len(tags) * (20 if big else 12) + width
    extra, entries = b"", b""
    for number in sorted(tags):
        kind, values = tags[number]
        if isinstance(values, bytes):
            packed, count = values, len(values)
        else:
            form = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 11: "f", 12: "d", 16: "Q"}[kind]
            packed, count = struct.pack(order + form * len(values), *values), len(values)
        if len(packed) > width:
            where = struct.pack(order + ("Q" if big else "I"), start + fixed + len(extra))
            extra += packed + bytes(len(packed) % 2)
        else:
            where = (packed + bytes(width))[:width]
        entries += struct.pack(order + ("HHQ" if big else "HHI"), number, kind, count) + where
    count = struct.pack(order + ("Q" if big else "H"), len(tags))
    mark = b"II" if order == "<" else b"MM"
    first = struct.pack(order + ("HHHQ" if big else "HI"), *((43, 8, 0, start) if big else (42, start)))
    return mark + first + body + count + entries + bytes(width) + extra


def common(photometric, bits, samples, rows=H, compression=1, **more):
    tags = {256: (LONG, [W]), 257: (LONG, [H]), 258: (SHORT, bits), 259: (SHORT, [compression]), 262: (SHORT, [photometric]),
            277: (SHORT, [samples]), 278: (LONG, [rows])}
    tags.update({int(k[1:]): v for k, v in more.items()})
    return tags


def strips(data, rows, row_bytes):
    return [data[i : i + rows * row_bytes] for i in range(0, len(data), rows * row_bytes)]


def tiles(pixels, side=16):
    out = []
    for y in range(0, H, side):
        for x in range(0, W, side):
            block = np.zeros((side, side) + pixels.shape[2:], pixels.dtype)
            part = pixels[y : y + side, x : x + side]
            block[: part.shape[0], : part.shape[1]] = part
            out.append(block.tobytes())
    return out


def saved(image, **how):
    out = io.BytesIO()
    image.save(out, "TIFF", **how)
    return out.getvalue()


def colour_map(n):
    """In TIFF's order: all reds, greens, blues; 16 bits."""
    p = palette(n)
    return [p[i * 3 + c] * 257 for c in range(3) for i in range(n)]


def zoo():
    rgb, grey, alpha, rgba = base.rgb(), base.grey(), base.alpha(), base.rgba()
    eight = [8, 8, 8]
    plain = rgb.tobytes()
    for order, o in (("<", "le"), (">", "be")):
        yield f"rgb_{o}.tif", tiff([plain], common(2, eight, 3), order)
        yield f"big_{o}.tif", tiff([plain], common(2, eight, 3), order, big=True)
        wide = (rgb.astype(np.uint16) * 257 - (rgb > 0) * 100).astype(order + "u2")
        yield f"rgb_16_{o}.tif", tiff([wide.tobytes()], common(2, [16] * 3, 3), order)
        g16 = (grey.astype(np.uint16) * 257 - (grey > 0) * 100).astype(order + "u2")
        yield f"grey_16_{o}.tif", tiff([g16.tobytes()], common(1, [16], 1), order)
        yield f"grey_16_white_is_zero_{o}.tif", tiff([g16.tobytes()], common(0, [16], 1), order)
        rgba16 = (rgba.astype(np.uint16) * 257 - (rgba > 0) * 100).astype(order + "u2")
        yield f"rgba_16_{o}.tif", tiff([rgba16.tobytes()], common(2, [16] * 4, 4, t338=(SHORT, [2])), order)
    yield "strips.tif", tiff(strips(plain, 5, W * 3), common(2, eight, 3, rows=5))
    yield "tiles.tif", tiff(tiles(rgb), {**common(2, eight, 3), 322: (SHORT, [16]), 323: (SHORT, [16])})
    yield "big_tiles.tif", tiff(tiles(rgb), {**common(2, eight, 3), 322: (SHORT, [16]), 323: (SHORT, [16])}, big=True)
    planes = [np.ascontiguousarray(rgb[..., c]).tobytes() for c in range(3)]
    yield "planes.tif", tiff(planes, common(2, eight, 3, t284=(SHORT, [2])))
    yield "planes_16.tif", tiff([(np.ascontiguousarray(rgb[..., c]).astype("<u2") * 257).tobytes() for c in range(3)],
                                common(2, [16] * 3, 3, t284=(SHORT, [2])))
    yield "planes_strips.tif", tiff([s for p in planes for s in strips(p, 9, W)], common(2, eight, 3, rows=9, t284=(SHORT, [2])))
    yield "planes_tiles.tif", tiff([t for c in range(3) for t in tiles(np.ascontiguousarray(rgb[..., c]))],
                                   {**common(2, eight, 3, t284=(SHORT, [2])), 322: (SHORT, [16]), 323: (SHORT, [16])})
    yield "deflate.tif", tiff([zlib.compress(plain, 9)], common(2, eight, 3, compression=8))
    difference = rgb.copy()
    difference[:, 1:] = rgb[:, 1:] - rgb[:, :-1]
    yield "deflate_predictor.tif", tiff([zlib.compress(difference.tobytes(), 9)], common(2, eight, 3, compression=8, t317=(SHORT, [2])))
    for name in ("tiff_lzw", "packbits", "jpeg"):
        yield f"{name}.tif", saved(Image.fromarray(rgb), compression=name)
    yield "jpeg_grey.tif", saved(Image.fromarray(grey), compression="jpeg")
    for name in ("group3", "group4"):
        yield f"{name}.tif", saved(Image.fromarray(grey).convert("1"), compression=name)

    for bits in (1, 2, 4, 8):
        data = b"".join(pack_bits(grey >> (8 - bits), bits))
        yield f"grey_{bits}.tif", tiff([data], common(1, [bits], 1))
        yield f"grey_{bits}_white_is_zero.tif", tiff([data], common(0, [bits], 1))
        yield f"palette_{bits}.tif", tiff([data], common(3, [bits], 1, t320=(SHORT, colour_map(1 << bits))))
    yield "palette_8_be.tif", tiff([grey.tobytes()], common(3, [8], 1, t320=(SHORT, colour_map(256))), ">")
    yield "palette_8_big.tif", tiff([grey.tobytes()], common(3, [8], 1, t320=(SHORT, colour_map(256))), big=True)
    yield "palette_8_strips.tif", tiff(strips(grey.tobytes(), 6, W), common(3, [8], 1, rows=6, t320=(SHORT, colour_map(256))))
    yield "palette_8_tiles.tif", tiff(tiles(grey), {**common(3, [8], 1, t320=(SHORT, colour_map(256))), 322: (SHORT, [16]), 323: (SHORT, [16])})
    yield "palette_8_eight_bit_map.tif", tiff([grey.tobytes()], common(3, [8], 1, t320=(SHORT, [v // 257 for v in colour_map(256)])))
    yield "palette_8_short_map.tif", tiff([grey.tobytes()], common(3, [8], 1, t320=(SHORT, colour_map(256)[:300])))
    yield "palette_8_no_map.tif", tiff([grey.tobytes()], common(3, [8], 1))
    yield "palette_lzw.tif", saved(Image.fromarray(rgb).quantize(60), compression="tiff_lzw")
    yield "palette_alpha.tif", tiff([np.dstack([grey, alpha]).tobytes()],
                                    common(3, [8, 8], 2, t320=(SHORT, colour_map(256)), t338=(SHORT, [2])))
    yield "palette_4_orientation.tif", tiff([b"".join(pack_bits(grey >> 4, 4))],
                                            common(3, [4], 1, t320=(SHORT, colour_map(16)), t274=(SHORT, [6])))
    yield "no_bits_tag.tif", tiff([b"".join(pack_bits(grey >> 7, 1))], {k: v for k, v in common(1, [1], 1).items() if k != 258})
    yield "no_photometric.tif", tiff([plain], {k: v for k, v in common(2, eight, 3).items() if k != 262})
    yield "fill_order_2.tif", tiff([bytes(int(f"{b:08b}"[::-1], 2) for b in b"".join(pack_bits(grey >> 7, 1)))],
                                   common(1, [1], 1, t266=(SHORT, [2])))

    # Alpha: none, apart, multiplied in, unspecified.
    def divided(multiplied):
        full = multiplied.astype(np.uint32) * 255 // np.maximum(alpha, 1).reshape(alpha.shape + (1,) * (multiplied.ndim - 2))
        return np.where(alpha.reshape(alpha.shape + (1,) * (multiplied.ndim - 2)) > 0, np.minimum(full, 255), 0).astype(np.uint8)

    half = alpha.astype(np.uint32)[..., None]
    multiplied = ((rgb * half + 127) // 255).astype(np.uint8)
    for name, value, colour in (("apart", [2], rgb), ("multiplied", [1], multiplied), ("unspecified", [0], rgb), ("untold", None, rgb)):
        more = {} if value is None else {"t338": (SHORT, value)}
        yield f"rgba_{name}.tif", tiff([np.dstack([colour, alpha]).tobytes()], common(2, [8] * 4, 4, **more))
    yield "rgba_empty.tif", tiff([np.dstack([rgb, alpha * 0]).tobytes()], common(2, [8] * 4, 4, t338=(SHORT, [2])))
    yield "rgba_multiplied_big.tif", tiff([np.dstack([multiplied, alpha]).tobytes()], common(2, [8] * 4, 4, t338=(SHORT, [1])), ">", big=True), divided(multiplied)
    wide = (np.dstack([multiplied, alpha]).astype("<u2")) * 257
    yield "rgba_multiplied_16.tif", tiff([wide.tobytes()], common(2, [16] * 4, 4, t338=(SHORT, [1])))
    yield "rgba_multiplied_planes.tif", tiff([np.ascontiguousarray(np.dstack([multiplied, alpha])[..., c]).tobytes() for c in range(4)],
                                             common(2, [8] * 4, 4, t338=(SHORT, [1]), t284=(SHORT, [2]))), divided(multiplied)
    gm = ((grey * alpha.astype(np.uint32) + 127) // 255).astype(np.uint8)
    yield "grey_alpha_apart.tif", tiff([np.dstack([grey, alpha]).tobytes()], common(1, [8, 8], 2, t338=(SHORT, [2])))
    yield "grey_alpha_multiplied.tif", tiff([np.dstack([gm, alpha]).tobytes()], common(1, [8, 8], 2, t338=(SHORT, [1]))), np.dstack([divided(gm)] * 3)
    yield "rgb_two_extras.tif", tiff([np.dstack([rgb, alpha, grey]).tobytes()], common(2, [8] * 5, 5, t338=(SHORT, [2, 0])))

    ink = np.asarray(inks())
    yield "cmyk.tif", tiff([ink.tobytes()], common(5, [8] * 4, 4))
    yield "cmyk_be_big.tif", tiff([ink.tobytes()], common(5, [8] * 4, 4), ">", big=True), np.asarray(inks().convert("RGB"))
    yield "cmyk_16.tif", tiff([(ink.astype("<u2") * 257).tobytes()], common(5, [16] * 4, 4))
    yield "cmyk_planes.tif", tiff([np.ascontiguousarray(ink[..., c]).tobytes() for c in range(4)], common(5, [8] * 4, 4, t284=(SHORT, [2])))
    yield "cmyk_alpha.tif", tiff([np.dstack([ink, alpha]).tobytes()], common(5, [8] * 5, 5, t338=(SHORT, [0])))
    yield "cmyk_lzw.tif", saved(inks(), compression="tiff_lzw")
    ycc = np.asarray(Image.fromarray(rgb).convert("YCbCr"))
    yield "ycc.tif", tiff([ycc.tobytes()], common(6, eight, 3, t530=(SHORT, [1, 1])))
    yield "lab.tif", tiff([rgb.tobytes()], common(8, eight, 3))
    yield "float_rgb.tif", tiff([(rgb / 255).astype("<f4").tobytes()], common(2, [32] * 3, 3, t339=(SHORT, [3] * 3)))
    yield "float_grey.tif", tiff([(grey / 255).astype("<f4").tobytes()], common(1, [32], 1, t339=(SHORT, [3])))
    yield "grey_32.tif", tiff([(grey.astype("<u4") << 24).tobytes()], common(1, [32], 1))
    yield "grey_12.tif", tiff([b"".join(bytes([(a << 4 | a >> 4) >> 4 & 255, (a & 15) << 4 | b >> 4, (b & 15) << 4 | b >> 4])
                                        for a, b in zip(grey[:, ::2].ravel().tolist(), grey[:, 1::2].ravel().tolist()))], common(1, [12], 1))
    yield "signed_grey.tif", tiff([grey.tobytes()], common(1, [8], 1, t339=(SHORT, [2])))
    yield "rgb_4.tif", tiff([b"".join(pack_bits((rgb >> 4).reshape(H, -1), 4))], common(2, [4] * 3, 3))
    yield "mask.tif", tiff([b"".join(pack_bits(grey >> 7, 1))], common(4, [1], 1))

    two = io.BytesIO()
    Image.fromarray(rgb).save(two, "TIFF", save_all=True, append_images=[Image.fromarray(255 - rgb)])
    yield "two_pages.tif", two.getvalue()
    for value in range(0, 10):
        yield f"orientation_{value}.tif", tiff([plain], common(2, eight, 3, t274=(SHORT, [value])))
    for name, kind in (("byte", 1), ("long", 4), ("sshort", 8), ("slong", 9)):
        for order, o in (("<", "le"), (">", "be")):
            yield f"orientation_{name}_{o}.tif", tiff([plain], common(2, eight, 3, t274=(kind, [6])), order)
    yield "orientation_big.tif", tiff([plain], common(2, eight, 3, t274=(SHORT, [6])), ">", big=True)
    yield "orientation_long8_big.tif", tiff([plain], common(2, eight, 3, t274=(LONG8, [6])), big=True)
    yield "orientation_two.tif", tiff([plain], common(2, eight, 3, t274=(SHORT, [6, 3])))
    yield "orientation_cmyk.tif", tiff([ink.tobytes()], common(5, [8] * 4, 4, t274=(SHORT, [8])))
    yield "orientation_xmp.tif", tiff([plain], common(2, eight, 3, t700=(1, base.xmp())))
    yield "icc.tif", tiff([plain], common(2, eight, 3, t34675=(7, __import__("pictures.jpeg", fromlist=["x"]).swapped_profile())))
    yield "cut.tif", tiff([plain], common(2, eight, 3))[:-60]
    whole = tiff([plain], common(2, eight, 3))
    yield "strip_outside.tif", tiff([plain[:800]], common(2, eight, 3))
