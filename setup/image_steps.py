#!/usr/bin/env python3
"""Takes the steps of the Dockerfile in a plain folder, for machines without a container engine.

    setup/image_steps.py CONTEXT ROOT VENV

CONTEXT is what `docker build` would see, ROOT becomes the root of the image, VENV is an environment that stands for the image's Python (what pip shall not
fetch is in it; PIP_NO_DEPS and PIP_NO_INDEX keep pip from the network). Files go under ROOT instead of /, commands run with its folders in the place of the
image's; users are noted and not made. Prints as JSON what the image would be started with. An instruction that it does not know is an error, and so is a
step that fails.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

# Folders of the image that steps write to.
OF_IMAGE = ("/tmp/wheel", "/usr/local/bin", "/runs")


def instructions(text: str) -> list[tuple[str, str]]:
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n", " ", "\n".join(lines))
    return [(word, rest.strip()) for word, _, rest in (line.strip().partition(" ") for line in joined.splitlines())]


def main() -> None:
    context, root, venv = (Path(argument).resolve() for argument in sys.argv[1:4])
    image: dict = {"env": {}, "args": {}, "exposed": []}

    def inside(path: str) -> Path:
        return root / path.lstrip("/")

    for folder in (*OF_IMAGE, "/tmp", "/etc"):
        inside(folder).mkdir(parents=True, exist_ok=True)
    tools = inside("/tools")
    tools.mkdir(exist_ok=True)
    users = inside("/etc/users")
    for name, script in {
        "pip": f'exec {shlex.quote(sys.executable)} -m pip --disable-pip-version-check --python {shlex.quote(str(venv / "bin/python"))} "$@"',
        "useradd": f'echo "$@" >> {shlex.quote(str(users))}',
        # Who owns what is root's to say.
        "install": 'while [ $# -gt 1 ]; do case "$1" in -o|-g) shift 2;; *) break;; esac; done; exec /usr/bin/install "$@"',
    }.items():
        (tools / name).write_text(f"#!/bin/sh\n{script}\n")
        (tools / name).chmod(0o755)

    def run(command: str) -> None:
        for folder in OF_IMAGE:
            command = re.sub(rf"(?<![\w/]){re.escape(folder)}\b", str(inside(folder)), command)
        command = command.replace("install -d -o splitmask -g splitmask", "install -o splitmask -g splitmask -d")
        path = f"{tools}:{inside('/usr/local/bin')}:{venv / 'bin'}:/usr/bin:/bin"
        keep = {name: value for name, value in os.environ.items() if name in ("HOME", "TMPDIR") or name.startswith("PIP_")}
        done = subprocess.run(["sh", "-c", command], cwd=root, env=keep | image["args"] | image["env"] | {"PATH": path}, stdout=sys.stderr)
        if done.returncode:
            sys.exit(f"step failed with {done.returncode}: RUN {command}")

    for word, rest in instructions((context / "Dockerfile").read_text()):
        match word:
            case "FROM":
                image["from"] = rest
            case "ARG":
                name, _, value = rest.partition("=")
                image["args"][name] = os.environ.get(name, value.strip('"'))
            case "COPY":
                *sources, target = rest.split()
                found = [file for source in sources for file in sorted(context.glob(source))]
                if not found:
                    sys.exit(f"nothing to copy: COPY {rest}")
                for file in found:
                    shutil.copy(file, inside(target) if target.endswith("/") else inside(target))
            case "RUN":
                run(rest)
            case "ENV":
                name, _, value = rest.partition("=")
                image["env"][name] = value
            case "EXPOSE":
                image["exposed"].append(int(rest))
            case "HEALTHCHECK":
                options, _, command = rest.partition("CMD ")
                image["healthcheck"] = {"options": options.split(), "command": json.loads(command)}
            case "ENTRYPOINT" | "CMD":
                image[word.lower()] = json.loads(rest)
            case "USER" | "WORKDIR" | "STOPSIGNAL":
                image[word.lower()] = rest
            case _:
                sys.exit(f"unknown instruction: {word} {rest}")
    image["users"] = users.read_text().splitlines() if users.exists() else []
    print(json.dumps(image))


main()
