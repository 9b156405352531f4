#!/usr/bin/env python3
"""Two hosts on one machine, and the link between them cut: network namespaces, a pair of virtual Ethernet devices each, a bridge as the switch.

    SPLITMASK=target/debug/splitmask setup/network_check.py          as root, with iproute2; about four minutes

Trains the same small run on two ranks, one a host: undisturbed; with the cable of rank 1's host pulled for 20 s, which is shorter than the time-outs; and
with the cable pulled until both ranks have ended, after which both are started again. Fails unless the short cut is survived, the long one ends both ranks
with 75 and words that say who was lost, and both runs end with the losses and weights of the undisturbed one.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import small_run
from program import SPLITMASK

# Seconds that ranks wait in a step and between two.
TIMEOUT = 15


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


class Hosts:
    """Two namespaces and the switch between them; taken away at the end."""

    def __init__(self) -> None:
        own = os.getpid() % 10000
        self.names = [f"check-{own}-{n}" for n in range(2)]
        self.ports = [f"ck{own}p{n}" for n in range(2)]
        self.bridge = f"ck{own}br"

    def __enter__(self):
        ip("link", "add", self.bridge, "type", "bridge")
        ip("link", "set", self.bridge, "up")
        for n, (name, port) in enumerate(zip(self.names, self.ports)):
            ip("netns", "add", name)
            ip("link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", name)
            ip("link", "set", port, "master", self.bridge)
            ip("link", "set", port, "up")
            ip("-n", name, "link", "set", "lo", "up")
            ip("-n", name, "address", "add", f"10.77.0.{n + 1}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "eth0", "up")
        return self

    def __exit__(self, *_: object) -> None:
        for name in self.names:
            subprocess.run(["ip", "netns", "delete", name])
        subprocess.run(["ip", "link", "delete", self.bridge])

    def cut(self) -> None:
        """Pulls the cable of the second host at the switch: no packet passes, and nobody is told."""
        ip("link", "set", self.ports[1], "down")

    def mend(self) -> None:
        ip("link", "set", self.ports[1], "up")


class Company:
    """Both ranks of a run."""

    def __init__(self, hosts: Hosts, config: Path, run: Path, timeout: float) -> None:
        self.run, self.logs = run, [run.with_name(f"{run.name}-{rank}.log") for rank in range(2)]
        self.ranks = []
        for rank, (name, log) in enumerate(zip(hosts.names, self.logs)):
            env = os.environ | {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "10.77.0.1", "MASTER_PORT": "29500"}
            sets = [f'run.dir="{run}"', f"ranks.step_timeout_s={timeout}", f"ranks.control_timeout_s={timeout}"]
            command = ["ip", "netns", "exec", name, SPLITMASK, "train", "--config", str(config), *(word for s in sets for word in ("--set", s))]
            sink = log.open("ab")
            self.ranks.append(subprocess.Popen(command, env=env, stdout=sink, stderr=sink))

    def step(self) -> int:
        lines = small_run.trace(self.run)
        return lines[-1]["step"] if lines else 0

    def until(self, step: int) -> None:
        while self.step() < step:
            if any(rank.poll() is not None for rank in self.ranks):
                raise SystemExit("a rank ended early:\n" + self.told())
            time.sleep(0.05)

    def ends(self, seconds: float) -> list[tuple[int, float]]:
        """Exit codes and seconds from now, in the order of ranks."""
        began, codes = time.time(), {}
        while len(codes) < 2:
            for n, rank in enumerate(self.ranks):
                if n not in codes and rank.poll() is not None:
                    codes[n] = (rank.returncode, time.time() - began)
            if time.time() - began > seconds:
                raise SystemExit(f"the ranks do not end within {seconds} s:\n{self.told()}")
            time.sleep(0.05)
        return [codes[0], codes[1]]

    def told(self) -> str:
        return "\n".join(f"--- {log.name}\n" + log.read_text()[-3000:] for log in self.logs)

    def finish(self) -> None:
        codes = [code for code, _ in self.ends(600)]
        if codes != [0, 0]:
            raise SystemExit(f"exit codes {codes}:\n{self.told()}")

    def kill(self) -> None:
        for rank in self.ranks:
            rank.kill()


def errors(log: Path) -> list[str]:
    return [line for line in log.read_text().splitlines() if "ERROR" in line or "WARN" in line or "error:" in line]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--steps", type=int, default=300)
    options.add_argument("--keep", action="store_true", help="leave the folder with all logs there")
    options = options.parse_args()
    if os.geteuid() or not shutil.which("ip"):
        raise SystemExit("network namespaces need root and the package iproute2")
    folder = Path(tempfile.mkdtemp(prefix="network-check-"))
    company = None
    try:
        config = small_run.make(folder, options.steps, 20)
        with Hosts() as hosts:
            began = time.time()
            company = Company(hosts, config, folder / "undisturbed", TIMEOUT)
            company.finish()
            print(f"undisturbed: {options.steps} steps in {time.time() - began:.0f} s", flush=True)

            company = Company(hosts, config, folder / "short", 120)
            company.until(options.steps // 3)
            hosts.cut()
            time.sleep(2)  # what was on its way has come
            at = company.step()
            time.sleep(18)
            if (now := company.step()) != at:
                raise SystemExit(f"step {at}, and {now} without a link: nothing was cut")
            hosts.mend()
            mended = time.time()
            company.until(at + 1)
            print(f"cut for 20 s at step {at}: the next step {time.time() - mended:.1f} s behind the mending", flush=True)
            company.finish()
            small_run.same(folder / "undisturbed", folder / "short")

            company = Company(hosts, config, folder / "long", TIMEOUT)
            company.until(options.steps // 3)
            hosts.cut()
            ends = company.ends(TIMEOUT * 4 + 60)
            for rank, (code, seconds) in enumerate(ends):
                print(f"cut for good, time-out {TIMEOUT} s: rank {rank} ended with {code} after {seconds:.1f} s", flush=True)
                last = errors(company.logs[rank])[-1:]
                print(f"    {last[0][:400] if last else 'no word'}", flush=True)
                other = f"rank {1 - rank}"
                if code != 75 or not last or not any(other in line for line in errors(company.logs[rank])):
                    raise SystemExit(f"75 and a word about {other} were promised:\n{company.told()}")
            hosts.mend()
            company = Company(hosts, config, folder / "long", TIMEOUT)
            company.finish()
            small_run.same(folder / "undisturbed", folder / "long")
    finally:
        if company:
            company.kill()
        if options.keep:
            print(f"left: {folder}")
        else:
            shutil.rmtree(folder)


if __name__ == "__main__":
    sys.exit(main())
