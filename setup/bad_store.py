"""Pictures as shards, some of them damaged, and a store that gives them in bad weather: what setup/soak.py trains on."""
import hashlib
import http.server
import random
import re
import socket
import struct
import threading
import time
import zlib
from pathlib import Path


def png(path: Path, rows: list[list[tuple[int, int, int]]]) -> None:
    """Writes an RGB picture."""
    chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    raw = b"".join(b"\0" + bytes(v for pixel in row for v in pixel) for row in rows)
    head = struct.pack(">IIBBBBB", len(rows[0]), len(rows), 8, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b""))


def draw(folder: Path, each: int) -> None:
    """Discs, squares, stripes and crosses on tinted grounds, no two alike."""
    for kind in range(4):
        (folder / f"class{kind}").mkdir(parents=True)
        for n in range(each):
            cx, cy, r = 20 + n * 7 % 24, 20 + n * 11 % 24, 8 + n % 9
            rows = []
            for y in range(64):
                row = []
                for x in range(64):
                    dx, dy = abs(x - cx), abs(y - cy)
                    inside = (dx * dx + dy * dy < r * r, dx < r and dy < r, (x + y + n) % 16 < 6, dx < 3 or dy < 3)[kind]
                    a, b, c = n * 5 % 90, n * 13 % 90, x + y
                    row.append((250 - a, 60 + b, 40) if inside else (a, b, 100 + c))
                rows.append(row)
            png(folder / f"class{kind}" / f"{n:03}.png", rows)


def damage(folder: Path, every: int) -> int:
    """Spoils every n-th picture of the shards in its middle; how many."""
    count = seen = 0
    for shard in sorted(folder.glob("*.tar")):
        data = bytearray(shard.read_bytes())
        for found in re.finditer(b"IDAT", bytes(data)):
            seen += 1
            if seen % every == 0:
                at = found.start() + 8
                data[at : at + 20] = bytes(b ^ 0x5A for b in data[at : at + 20])
                count += 1
        shard.write_bytes(data)
    return count


class Store(http.server.ThreadingHTTPServer):
    """Shards over HTTP with ranges and ETags, in bad weather."""

    daemon_threads = True

    def __init__(self, folder: Path, seed: int):
        super().__init__(("127.0.0.1", 0), Request)
        self.objects = {f"/b/t-{n:03}.tar": p.read_bytes() for n, p in enumerate(sorted(folder.glob("*.tar")))}
        self.range = f"t-{{000..{len(self.objects) - 1:03}}}.tar"
        self.random, self.lock = random.Random(seed), threading.Lock()
        self.answers = {}

    def weather(self) -> str:
        with self.lock:
            drawn = self.random.random()
            kind = next((k for share, k in ((0.10, "503"), (0.14, "500"), (0.19, "reset"), (0.23, "early"), (0.26, "crawl")) if drawn < share), "fair")
            self.answers[kind] = self.answers.get(kind, 0) + 1
            return kind

    def handle_error(self, request, client_address):
        pass  # A client that went.


class Request(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.answer(False)

    def do_GET(self):
        self.answer(True)

    def answer(self, body: bool):
        data = self.server.objects.get(self.path)
        if data is None:
            return self.say(404)
        kind = self.server.weather() if body else "fair"
        if kind in ("503", "500"):
            return self.say(int(kind), {"Retry-After": "1"} if kind == "503" else {})
        first, last = 0, len(data) - 1
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked:
            first, last = int(asked[1]), min(int(asked[2] or last), last)
        part = data[first : last + 1]
        told = len(part) // 2 if kind == "early" else len(part)
        headers = {"ETag": f'"{hashlib.md5(data).hexdigest()}"', "Content-Length": str(told), "Accept-Ranges": "bytes"}
        headers["Last-Modified"] = "Fri, 01 Jan 2021 00:00:00 GMT"
        if asked:
            headers["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
        self.say(206 if asked else 200, headers, close=True)
        if not body:
            return
        time.sleep(0.03)
        if kind in ("reset", "early"):
            self.send(part[: len(part) // 2], 400_000)
            if kind == "reset":
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        else:
            self.send(part, 20_000 if kind == "crawl" else 400_000)

    def send(self, part: bytes, rate: int):
        """At so many bytes a second."""
        for at in range(0, len(part), 8192):
            self.wfile.write(part[at : at + 8192])
            time.sleep(8192 / rate)

    def say(self, code: int, headers: dict | None = None, close: bool = False):
        self.send_response(code)
        headers = headers or {}
        if "Content-Length" not in headers:
            headers["Content-Length"] = "0"
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Connection", "close")
        self.close_connection = True
        self.end_headers()
