#!/usr/bin/env python3
"""Prints the licence texts of all crates that the program is made of, for packages that carry the program.

    setup/third_party.py > THIRD-PARTY-LICENCES.txt

Reads `cargo metadata` and the sources that cargo has fetched; nothing is asked of the network. A text that several crates share is printed
once. A crate without a licence file is named with what its manifest says.
"""
import collections
import json
import platform
import re
import subprocess
import sys
from pathlib import Path

LICENCE = re.compile(r"^(licen[cs]e|copying|copyright|notice|unlicense)", re.I)


def crates() -> list:
    target = f"{platform.machine()}-unknown-linux-gnu"
    text = subprocess.run(
        ["cargo", "metadata", "--format-version=1", "--locked", "--offline", f"--filter-platform={target}"], check=True, capture_output=True, text=True
    ).stdout
    metadata = json.loads(text)
    packages = {p["id"]: p for p in metadata["packages"]}
    nodes = {n["id"]: n for n in metadata["resolve"]["nodes"]}
    waiting, seen = [metadata["resolve"]["root"]], set()
    while waiting:
        package = waiting.pop()
        if package in seen or any("proc-macro" in t["kind"] for t in packages[package]["targets"]):
            continue
        seen.add(package)
        # What only builds or tests the program is not in it; nor is a macro, which runs while it is compiled.
        waiting += [d["pkg"] for d in nodes[package]["deps"] if any(k["kind"] is None for k in d["dep_kinds"])]
    return sorted((packages[i] for i in seen - set(metadata["workspace_members"])), key=lambda p: (p["name"], p["version"]))


def texts(package: dict) -> list:
    """Licence files at the top of a crate, and of the C sources that it bundles a folder or two below."""
    root = Path(package["manifest_path"]).parent
    found = [f for depth in ("*", "*/*", "*/*/*") for f in sorted(root.glob(depth)) if f.is_file() and LICENCE.match(f.name) and f.suffix not in (".rs", ".toml")]
    return [f.read_text(errors="replace").strip() for f in found if f.stat().st_size]


def main() -> None:
    users = collections.defaultdict(list)
    without = []
    packages = crates()
    for package in packages:
        name = f"{package['name']} {package['version']} ({package['license'] or 'see text'})"
        found = texts(package)
        if not found:
            without.append(name)
        for text in found:
            if name not in users[text]:
                users[text].append(name)
    out = sys.stdout
    out.write(f"splitmask contains the following {len(packages)} crates and the C sources that they bundle, under these licences.\n")
    out.write("libtorch is not part of this package; the Python package torch brings it under its own licence.\n")
    for text, names in sorted(users.items(), key=lambda item: item[1]):
        out.write(f"\n{'=' * 100}\n" + "\n".join(names) + f"\n{'-' * 100}\n\n{text}\n")
    if without:
        out.write(f"\n{'=' * 100}\nWithout a licence text in their sources; their manifests say:\n\n" + "\n".join(without) + "\n")


main()
