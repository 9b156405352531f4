#!/usr/bin/env python3
"""Makes zoo.tar.gz (odd pictures of every format that is read) and zoo.tsv (what Pillow and OpenCV see in each), for main.rs beside it.

    python3 -m venv v && v/bin/pip install pillow numpy opencv-python-headless && v/bin/python pipeline/tests/zoo/make_zoo.py

Pillow's pixels are those of ImageOps.exif_transpose(Image.open(f)).convert("RGB"), OpenCV's those of imread(f, IMREAD_COLOR).
The pictures are made byte by byte where no writer makes them; every run gives the same files.
"""

import fnmatch
import gzip
import io
import os
import sys
import tarfile
import warnings

os.environ["OPENCV_LOG_LEVEL"] = "OFF"
import cv2
import numpy as np
import PIL
from PIL import Image, ImageOps

from pictures import bmp, gif, jpeg, png, tiff, webp

SAMPLES = 5  # a grid of SAMPLES × SAMPLES pixels is kept of each picture

# Whom we follow where it is not Pillow, or that we refuse, as which reason; the first pattern that fits.
OTHERWISE = [
    ("grey_16*", "opencv", "Pillow clips 16 bits of grey at 255, which leaves white"),
    ("interlaced_grey_16.png", "opencv", "Pillow clips 16 bits of grey at 255, which leaves white"),
    ("planes_16.tif", "opencv", "Pillow takes the bytes of 16-bit planes for pixels"),
    ("palette_8_eight_bit_map.tif", "opencv", "a palette of 8 bits where 16 are asked for is black to Pillow"),
    ("palette_8_short_map.tif", "refused: corrupt", "they differ, and both guess"),
    ("palette_8_no_map.tif", "refused: corrupt", "a palette picture without its palette"),
    ("bad_data_checksum.png", "refused: corrupt", "the checksum says that pixels are damaged"),
    ("half_data.png", "refused: truncated", ""),
    ("twelve_bits.jpg", "refused: unsupported", ""),
    ("group3.tif", "refused: unsupported", "the tiff crate does not decompress it"),
    ("planes_tiles.tif", "refused: unsupported", "the tiff crate takes tiles at the edge of later planes for whole ones"),
    ("masks_32_none.bmp", "refused: corrupt", "masks without a bit"),
    ("no_table.gif", "refused: corrupt", "a GIF without a table of colours"),
    ("fill_order_2.tif", "refused: unsupported", "the tiff crate does not turn bits round"),
    ("no_photometric.tif", "refused: corrupt", ""),
    ("lab.tif", "refused: unsupported", "they differ"),
    ("float_*.tif", "refused: unsupported", "no agreed range of values"),
    ("grey_32.tif", "refused: unsupported", "Pillow clips to white and OpenCV does not read it"),
    ("grey_12.tif", "refused: unsupported", "Pillow clips to white and OpenCV does not read it"),
    ("rgb_4.tif", "refused: unsupported", ""),
    ("mask.tif", "refused: unsupported", ""),
    ("cut.tif", "refused: truncated", ""),
    ("strip_outside.tif", "refused: truncated", ""),
    ("cut.bmp", "refused: truncated", ""),
    ("rle8_cut.bmp", "refused: truncated", ""),
    ("alpha_bitfields.bmp", "refused: unsupported", ""),
    ("masks_16_444_*.bmp", "made", "neither reads it"),
    ("masks_32_ten_bits.bmp", "made", "Pillow does not read it, OpenCV darkens it"),
    ("cmyk_be_big.tif", "made", "Pillow does not read it: as the same picture in another byte order"),
    ("*_multiplied_planes.tif", "made", "Pillow does not read it: as the same picture in one plane"),
    ("*_multiplied_big.tif", "made", "Pillow does not read it: as the same picture in another byte order"),
    ("grey_alpha_multiplied.tif", "made", "Pillow cannot convert it: as colour"),
]


def pillow(data):
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
    except Exception as e:  # whatever it says, it does not read the file
        return f"{type(e).__name__}: {e}"


def opencv(data):
    try:
        got = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as e:
        return str(e).strip().replace("\n", " ")
    return "not read" if got is None else got[..., ::-1]


def grid(pixels):
    """Colours at the crossings of evenly spread rows and columns, corners included."""
    rows, columns = ([round(i * (n - 1) / (SAMPLES - 1)) for i in range(SAMPLES)] for n in pixels.shape[:2])
    return "".join("%02x%02x%02x" % tuple(int(v) for v in pixels[y, x]) for y in rows for x in columns)


def verdict(p, c):
    """How the two libraries stand to each other; a difference of 6 is that of two ways to round or to upsample colour."""
    if isinstance(p, str):
        return "neither reads it" if isinstance(c, str) else "only opencv"
    if isinstance(c, str):
        return "only pillow"
    if p.shape != c.shape:
        return "differ in size"
    worst = int(np.abs(p.astype(int) - c).max())
    return "agree" if worst <= 6 else f"differ by {worst}"


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    zoo, made = {}, {}
    for kind in (jpeg, png, webp, gif, bmp, tiff):
        for name, data, *pixels in kind.zoo():
            assert name not in zoo, name
            zoo[name] = data
            if pixels:
                made[name] = pixels[0]
    rows = []
    for name, data in zoo.items():
        p, c = pillow(data), opencv(data)
        said = verdict(p, c)
        if "-v" in sys.argv:
            print(f"{name:44} {len(data):6} {said:18} {p if isinstance(p, str) else (p.shape, p.mean((0, 1)).round(1).tolist())}"
                  + (f"  cv {c.shape, c.mean((0, 1)).round(1).tolist()}" if said.startswith("differ") or said == "only opencv" else ""))
        whom, why = next(((whom, why) for pattern, whom, why in OTHERWISE if fnmatch.fnmatch(name, pattern)), (None, ""))
        if whom is None:
            whom = "opencv" if isinstance(p, str) and not isinstance(c, str) else "pillow"
        if whom.startswith("refused"):
            rows.append((name, said, whom, "-", "-", "-", why))
            continue
        right = {"pillow": p, "opencv": c, "made": made.get(name)}[whom]
        assert isinstance(right, np.ndarray), f"{name}: {whom} does not read it ({said}); say in OTHERWISE what is right"
        h, w = right.shape[:2]
        mean = ",".join(f"{v:.3f}" for v in right.reshape(-1, 3).mean(0))
        rows.append((name, said, whom, f"{w}x{h}", mean, grid(right), why))
    # Without a time in it, so that every run gives the same bytes.
    with open(f"{here}/zoo.tar.gz", "wb") as file, gzip.GzipFile("", "wb", 9, file, mtime=0) as zipped:
        tar = tarfile.open(fileobj=zipped, mode="w", format=tarfile.USTAR_FORMAT)
        for name, data in zoo.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        tar.close()
    with open(f"{here}/zoo.tsv", "w") as table:
        print(f"# Pillow {PIL.__version__}, OpenCV {cv2.__version__}; written by make_zoo.py", file=table)
        print("# file\tpillow and opencv\tright\tsize\tmean of red, green, blue\tgrid of colours\twhy", file=table)
        for row in rows:
            print(*row, sep="\t", file=table)
    print(f"{len(zoo)} pictures, {os.path.getsize(here + '/zoo.tar.gz')} bytes")


main()
