#!/usr/bin/env python3
"""An hour of everything at once, and what is left of a run then.

Two runs read from a store that throttles, fails, breaks off, ends early and is slow; one picture in a hundred is damaged; their config file is edited every
ten seconds, by changes that are applied, refused as invalid and refused as frozen; a scraper and a browser ask, other clients ask and never read. One of
the runs is killed (-9) every minute and started again; the other lives through all of it. Both are stopped by SIGTERM then. A third run trains in peace,
from the disk, as far as they came.

Fails (exit code 1) unless both have the losses of the run in peace line by line, the killed one its weights bit for bit, no checkpoint was found damaged,
no run ended by itself, every scrape was answered, and the memory of the run that lived did not grow by more than 5 % and 4 MB.

    setup/soak.py --minutes 60 --picture docs/soak-of-faults.svg

Needs nothing but Python and the program; takes about one core.
"""

import argparse
import collections
import hashlib
import http.client
import itertools
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

from bad_store import Store, damage, draw
from small_run import TIMING

CHECKPOINT_EVERY = 50


CONFIG = """[run]
name = "soak"
dir = "unset"
seed = 3
[data]
train = "unset"
shuffle_window = 48
failure_budget = 0.05
[pipeline]
workers = 2
queue_batches = 2
[codebook]
path = "{words}"
[model]
size = "nano"
image = 32
patch = 8
width = 32
depth = 2
heads = 2
[objective]
kind = "splitmask"
mask = {{ kind = "uniform-split", keep = 0.5 }}
drop_path = 0.1
[optim]
lr = 1e-3
warmup_steps = 10
total_steps = 1000000
[train]
batch = 16
precision = "f32"
device = "cpu"
threads = 1
[checkpoint]
every_steps = 50
keep = 2
[picture]
every_steps = 1000
rows = 2
[log]
every_steps = 10
[admin]
bind = ""
"""


def edited(text: str, n: int) -> str:
    """Changes that no loss depends on, of the classes live and rebuild; an error; a frozen key."""
    more = n // 6 % 4
    return text.replace(
        *(
            ("workers = 2", f"workers = {1 + more}"),
            ("[log]", '[log]\nfilter = "debug"'),
            ("total_steps", "totel_steps"),
            ("queue_batches = 2", f"queue_batches = {1 + more}"),
            ("depth = 2", "depth = 3"),
            ("keep = 2", f"keep = {2 + more}"),
        )[n % 6]
    )


class Run:
    """A process of `splitmask train`, and those that follow it."""

    def __init__(self, soak: "Soak", name: str, data: str, every: int = CHECKPOINT_EVERY):
        self.soak, self.name, self.data, self.every = soak, name, data, every
        self.seen: list[tuple[float, float, int]] = []  # seconds, resident MB, step
        self.kills = self.scrapes = 0
        self.unanswered: list[str] = []
        self.trouble: OSError | None = None
        self.log = soak.folder / f"{name}.log"
        self.start()

    def start(self):
        self.listens = self.begun = False
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        sets = [
            f'run.dir="{self.soak.folder / self.name}"',
            f'data.train="{self.data}"',
            f"checkpoint.every_steps={self.every}",
            f'admin.bind="127.0.0.1:{self.port}"',
        ]
        command = [self.soak.program, "train", "--config", str(self.soak.config), "--enable-lifecycle"]
        for value in sets:
            command += ["--set", value]
        with open(self.log, "a") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def ask(self, path: str, timeout: float = 20) -> bytes | None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=timeout) as answer:
                self.listens = True
                return answer.read()
        except (OSError, http.client.HTTPException) as trouble:
            self.trouble = trouble
            return None

    def step(self) -> int:
        answer = self.ask("/api/v1/status")
        return json.loads(answer)["step"] if answer else 0

    def look(self, at: float):
        if self.process.poll() is not None:
            sys.exit(f"{self.name} ended by itself with {self.process.returncode} after {at:.0f} s:\n" + "\n".join(self.log.read_text().splitlines()[-20:]))
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        resident = re.search(r"VmRSS:\s+(\d+) kB", status)
        step = self.step()
        if resident and step:
            self.begun = True
            self.seen.append((at, int(resident[1]) / 1024, step))

    def kill(self):
        self.listens = False  # From here on nobody counts on an answer.
        self.process.kill()
        self.process.wait()
        self.kills += 1
        self.start()

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=120)

    def memory(self, first: float, last: float) -> float:
        """Median of the resident memory between two shares of the time, MB."""
        end = self.seen[-1][0]
        return statistics.median(m for at, m, _ in self.seen if first * end <= at <= last * end)

    def trace(self) -> list[dict]:
        lines = (self.soak.folder / self.name / "metrics.jsonl").read_text().splitlines()
        return [{k: v for k, v in json.loads(line).items() if k not in TIMING} for line in lines]

    def told(self, words: str) -> int:
        return self.log.read_text().count(words)

    def reloads(self) -> dict[str, int]:
        """How reloads ended, by the journal."""
        lines = map(json.loads, (self.soak.folder / self.name / "journal.jsonl").read_text().splitlines())
        return dict(collections.Counter(line["outcome"] for line in lines if line["event"] == "reload"))

    def checkpoints(self) -> list[int]:
        return sorted(int(p.name[5:]) for p in (self.soak.folder / self.name / "checkpoints").glob("step-*"))

    def weights(self, step: int) -> str:
        file = self.soak.folder / self.name / "checkpoints" / f"step-{step:08}" / "model.safetensors"
        return hashlib.sha256(file.read_bytes()).hexdigest()


class Soak:
    def __init__(self, program: str, folder: Path, seed: int):
        self.program, self.folder, self.config = program, folder, folder / "config.toml"
        draw(folder / "images", 60)
        self.call("pack", "images", "data", "--shard-size", "100KiB")
        words = folder / "words.safetensors"
        geometry = ["--words", "64", "--image", "32", "--patch", "8", "--pixels", "raw", "--seed", "0"]
        self.call("codebook", "data/train", "--out", str(words), "--kind", "random-patches", *geometry)
        self.bad = damage(folder / "data/train", 100)
        self.text = CONFIG.format(words=words)
        self.put(self.text)
        self.store = Store(folder / "data/train", seed)
        threading.Thread(target=self.store.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.store.server_port}/b/{self.store.range}"

    def call(self, *arguments: str):
        done = subprocess.run([self.program, *arguments], cwd=self.folder, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"splitmask {' '.join(arguments)}: {done.stderr}")

    def put(self, text: str):
        """As editors do that replace a file."""
        beside = self.config.with_suffix(".new")
        beside.write_text(text)
        beside.rename(self.config)


def lives(process: subprocess.Popen) -> bool:
    """Whether it is no process that a kill is ending: its connections break a moment before it is gone."""
    try:
        process.wait(1)
    except subprocess.TimeoutExpired:
        return True
    return False


def ask_around(runs: list[Run], enough: threading.Event):
    """A scraper and a browser; now and then a client that asks two hundred times and never reads."""
    deaf: list[socket.socket] = []
    for n in itertools.count():
        if enough.wait(1):
            return
        for run in runs:
            process, listened = run.process, run.listens
            for path in ("/metrics", ("/", "/api/v1/status", "/api/v1/history", "/api/v1/events")[n % 4]):
                if run.ask(path) is not None:
                    run.scrapes += 1
                # One that was killed, or has not begun to listen, owes no answer.
                elif listened and run.listens and run.process is process and lives(process):
                    run.unanswered.append(f"{path}: {run.trouble}")
            if n % 5 == 0:
                try:
                    client = socket.create_connection(("127.0.0.1", run.port), timeout=2)
                    client.setblocking(False)
                    client.send(f"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1:{run.port}\r\n\r\n".encode() * 200)
                    deaf.append(client)
                except OSError:
                    pass
        if len(deaf) > 40:
            for client in deaf:
                client.close()
            deaf.clear()


def panel(top: int, title: str, unit: str, curves: dict[str, list[tuple[float, float]]]) -> str:
    """Curves over minutes as SVG, 900 × 300 px at `top`."""
    width, height, left, below = 900, 300, 70, 40
    far = max(x for points in curves.values() for x, _ in points)
    high = max(y for points in curves.values() for _, y in points) * 1.1
    x = lambda v: left + v / far * (width - left - 20)
    y = lambda v: top + height - below - v / high * (height - below - 40)
    out = [f'<text x="{left}" y="{top + 24}" font-size="16">{title}</text>']
    for n in range(5):
        value = high * n / 4
        out.append(f'<line x1="{left}" x2="{width - 20}" y1="{y(value):.1f}" y2="{y(value):.1f}" stroke="#ddd"/>')
        out.append(f'<text x="{left - 8}" y="{y(value) + 4:.1f}" font-size="11" text-anchor="end">{value:.0f} {unit}</text>')
        out.append(f'<text x="{x(far * n / 4):.1f}" y="{top + height - 20}" font-size="11" text-anchor="middle">{far * n / 4:.0f} min</text>')
    for n, (name, points) in enumerate(curves.items()):
        colour = ("#1f77b4", "#d62728")[n % 2]
        path = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in points)
        out.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        out.append(f'<text x="{width - 24}" y="{top + 24 + 16 * n}" font-size="12" text-anchor="end" fill="{colour}">{name}</text>')
    return "\n".join(out)


def picture(runs: list[Run]) -> str:
    names = {run: "killed every minute" if run.kills else "never killed" for run in runs}
    memory = {names[r]: [(at / 60, mb) for at, mb, _ in r.seen] for r in runs}
    steps = {names[r]: [(at / 60, step / 1000) for at, _, step in r.seen] for r in runs}
    body = panel(0, "Resident memory", "MB", memory) + "\n" + panel(310, "Steps, thousands", "k", steps)
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" width="900" height="620" viewBox="0 0 900 620" font-family="sans-serif">\n'
        f'<rect width="900" height="620" fill="#fff"/>\n{body}\n</svg>\n'
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--splitmask", default="target/debug/splitmask", help="the program")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--reload-s", type=float, default=10, help="seconds between two edits of the config")
    parser.add_argument("--kill-s", type=float, default=60, help="seconds between two kills")
    parser.add_argument("--seed", type=int, default=1, help="of the store's weather")
    parser.add_argument("--picture", type=Path, help="where the curves of memory and steps go, SVG")
    parser.add_argument("--keep", type=Path, help="a new folder for runs and logs, which stays")
    args = parser.parse_args()
    program = shutil.which(args.splitmask) or sys.exit(f"--splitmask {args.splitmask}: there is no such program; `cargo build` makes it")
    if args.keep:
        args.keep.mkdir(parents=True)
    folder = (args.keep or Path(tempfile.mkdtemp(prefix="soak-"))).resolve()
    soak = Soak(os.path.abspath(program), folder, args.seed)
    runs = [Run(soak, "killed", soak.url), Run(soak, "steady", soak.url)]
    try:
        return measure(soak, runs, args)
    finally:
        for run in runs:
            run.process.kill()
        if not args.keep:
            shutil.rmtree(folder, ignore_errors=True)


def measure(soak: Soak, runs: list[Run], args: argparse.Namespace) -> int:
    enough = threading.Event()
    asker = threading.Thread(target=ask_around, args=(runs, enough), daemon=True)
    asker.start()
    began = time.monotonic()
    reloads, next_reload, next_kill = 0, args.reload_s, args.kill_s
    while (at := time.monotonic() - began) < args.minutes * 60:
        for run in runs:
            run.look(at)
        # A process that starts reads the file, too, and must find one that it takes.
        begun = all(run.begun for run in runs)
        if at >= next_reload and begun:
            soak.put(edited(soak.text, reloads))
            for run in runs:
                run.process.send_signal(signal.SIGHUP)
            reloads, next_reload = reloads + 1, at + args.reload_s
        if at >= next_kill and begun:
            soak.put(soak.text)
            runs[0].kill()
            next_kill = at + args.kill_s
        time.sleep(1)
    enough.set()
    asker.join()
    soak.put(soak.text)
    codes = [run.stop() for run in runs]

    far = max(run.trace()[-1]["step"] for run in runs)
    of_weights = max(step for step in runs[0].checkpoints() if step % CHECKPOINT_EVERY == 0)
    peace = Run(soak, "peace", str(soak.folder / "data/train"), of_weights)
    runs.append(peace)  # Ended with the others, whatever happens.
    while peace.step() <= max(far, of_weights) and peace.process.poll() is None:
        time.sleep(0.5)
    codes.append(peace.stop())
    runs.pop()
    want = peace.trace()

    wrong = [f"{run.name} ended with {code}, not 75" for run, code in zip([*runs, peace], codes) if code != 75]
    print(f"{args.minutes:g} minutes, {soak.bad} of 240 pictures damaged, {reloads} edits of the config, answers of the store: {soak.store.answers}")
    for run in runs:
        have = run.trace()
        early, late = run.memory(0.1, 0.3), run.memory(0.8, 1.0)
        print(
            f"{run.name}: {have[-1]['step']} steps, {run.kills} kills, {len(have)} lines, "
            f"reloads {run.reloads()}, {run.scrapes} answers to clients, {len(run.unanswered)} missing, "
            f"memory {early:.1f} MB early, {late:.1f} MB late"
        )
        if have != want[: len(have)]:
            at = next((n for n, (a, b) in enumerate(zip(have, want)) if a != b), min(len(have), len(want)))
            wrong.append(f"{run.name}: line {at + 1} of metrics.jsonl is {have[at:at + 1]}, in peace {want[at:at + 1]}")
        if run.told("is damaged"):
            wrong.append(f"{run.name}: a checkpoint was found damaged")
        if run.unanswered:
            wrong.append(f"{run.name}: no answer to {len(run.unanswered)} requests, the first {run.unanswered[:3]}")
    if runs[0].weights(of_weights) != peace.weights(of_weights):
        wrong.append(f"the weights of step {of_weights} differ from those of the run in peace")
    early, late = runs[1].memory(0.1, 0.3), runs[1].memory(0.8, 1.0)
    if late > early * 1.05 + 4:
        wrong.append(f"memory of the run that was never killed grew from {early:.1f} to {late:.1f} MB")
    if args.picture:
        args.picture.write_text(picture(runs))
    for line in wrong:
        print(f"WRONG: {line}")
    if not wrong:
        print(f"same losses in every line up to step {far}, same weights at step {of_weights}")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
