"""The parts of the GPU check, each behind a fence of its own: what one costs or breaks, the others do not feel. Standard library only.

Run by run.sh beside it, which sets DEVICE (cuda or cpu), OUT, PYTHON and the libraries' path. Writes $OUT/gpu_check.json after every part, and
$OUT/gpu_check.txt at the end. Ends with 0 if every part was right, with 1 otherwise.
"""
import json, os, pathlib, re, shutil, signal, socket, subprocess, sys, time

HERE = pathlib.Path(__file__).resolve().parent
DEVICE, OUT, PYTHON = os.environ["DEVICE"], pathlib.Path(os.environ["OUT"]), os.environ["PYTHON"]
TINY = bool(os.environ.get("TINY"))
# With these workspaces cuBLAS repeats its sums, which train.deterministic asks for.
os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
GPU = DEVICE.startswith("cuda")
IMAGE = 64 if TINY else 224
# Seconds for everything; a part that would begin later is left out, and told, and what runs then is ended.
BUDGET = float(os.environ.get("BUDGET", 350))
BEGAN = time.monotonic()
# Results of the parts that are done, by name.
DONE = {}


class Skipped(Exception):
    """A part that has nothing to measure here; says why."""


def within(limit):
    """`limit` seconds, or what is left for everything."""
    return max(1.0, min(limit, BUDGET - (time.monotonic() - BEGAN)))


def ended(command, limit, env=None):
    """Exit status, stdout and stderr of a command; with the processes that it starts it is killed behind `limit` seconds."""
    with subprocess.Popen(command, cwd=HERE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **(env or {})}, start_new_session=True) as process:
        try:
            out, told = process.communicate(timeout=within(limit))
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    return process.returncode, out, told


def run(command, limit, env=None):
    """stdout and stderr of a command that must succeed within `limit` seconds."""
    status, out, told = ended(command, limit, env)
    if status != 0:
        raise RuntimeError(f"{command[0]} ended with {status}: " + (told or out)[-2000:])
    return out, told


def splitmask(*arguments, limit):
    return run(["./splitmask", *map(str, arguments)], limit)


def config(name, **change):
    """A config file of a run on the photographs; `change` has keys with __ for the dot."""
    values = {
        "run.name": name, "run.dir": str(HERE / "runs" / name), "data.train": str(HERE / "photos"), "codebook.path": str(HERE / "words.safetensors"),
        "model.size": "nano" if TINY else "base", "model.image": IMAGE, "objective.kind": "splitmask", "optim.lr": 1e-4, "optim.warmup_steps": 2,
        "optim.total_steps": 100000, "train.batch": 4 if TINY else 128, "train.device": DEVICE, "train.precision": "f32" if TINY else "bf16",
        "checkpoint.every_steps": 1000000, "picture.every_steps": 0, "log.every_steps": 1 if TINY else 5, "admin.bind": "", "run.seed": 0,
        # Two threads that compute are slower than one while anything else runs on a small machine.
        "train.threads": 1 if TINY else 0,
    }
    values.update({key.replace("__", "."): value for key, value in change.items()})
    tables = {}
    for key, value in values.items():
        table, _, name_ = key.partition(".")
        tables.setdefault(table, []).append(f"{name_} = {json.dumps(value)}")
    path = HERE / f"{name}.toml"
    path.write_text("\n".join(f"[{table}]\n" + "\n".join(lines) for table, lines in tables.items()) + "\n")
    return path


def lines_of(name):
    path = HERE / "runs" / name / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def losses(name):
    return {line["step"]: line["total"] for line in lines_of(name) if "total" in line}


def compared(one, other, steps, allowed):
    """Largest relative difference between the losses of two runs, of which each must have that many steps and none may differ by more than is allowed."""
    one, other = losses(one), losses(other)
    if sorted(one) != list(range(1, steps + 1)) or one.keys() != other.keys():
        raise RuntimeError(f"steps {sorted(one)} and {sorted(other)} where 1 to {steps} were expected")
    worst = max(abs(other[step] / one[step] - 1) for step in one)
    if worst > allowed:
        raise RuntimeError(f"the losses differ by up to {worst:.2e}, allowed are {allowed:.0e}")
    return worst


def train(path, limit, kill=signal.SIGTERM):
    """Trains for `limit` seconds, then sends `kill`; answers the log."""
    with subprocess.Popen(["./splitmask", "train", "--config", path], cwd=HERE, stderr=subprocess.PIPE, text=True) as process:
        try:
            _, log = process.communicate(timeout=within(limit))
        except subprocess.TimeoutExpired:
            process.send_signal(kill)
            try:
                _, log = process.communicate(timeout=60)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
    if process.returncode not in (0, 75, -signal.SIGKILL):
        raise RuntimeError(f"train ended with {process.returncode}: {log[-2000:]}")
    return log


def machine():
    found = {"processors": os.cpu_count(), "commit": (HERE / "commit").read_text().strip(), "python": sys.version.split()[0]}
    if shutil.which("nvidia-smi"):
        query = "name,memory.total,driver_version,clocks.max.sm,power.limit"
        found["gpus"] = run(["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader"], 20)[0].strip().splitlines()
    elif GPU:
        raise RuntimeError("nvidia-smi is not there: is this a machine with an NVIDIA GPU?")
    return found


def doctor():
    lines = splitmask("doctor", limit=60)[0].splitlines()
    said = lambda what: next((" ".join(lines[n : n + 2] if line.startswith("gap") else [line]) for n, line in enumerate(lines) if f" {what} " in line), "")
    cuda = said("CUDA")
    if GPU and not cuda.startswith("ok"):
        raise RuntimeError("doctor: " + "\n".join(lines))
    return {"cuda": cuda, "nccl": said("NCCL") or "not tried without a GPU", "lines": lines}


def parity():
    """The tests against PyTorch's numbers, on the device, in f32."""
    names = ["against_pytorch::", "bf16::", "classify::", "segment::", "upernet::", "mask_rcnn::", "mask_rcnn_parts::", "mae::", "simclr::", "dino::", "dinov2::", "moco_v3::", "supervised::"]
    env = {"SPLITMASK_PARITY_DEVICE": DEVICE, "CARGO_MANIFEST_DIR": str(HERE), "RUST_BACKTRACE": "0"}
    _, out, err = ended(["./parity", *names, "--test-threads=1"], 90, env)
    wrong = re.findall(r"^test (\S+) \.\.\. FAILED", out, re.M)
    right = re.findall(r"^test (\S+) \.\.\. ok", out, re.M)
    told = re.findall(r"^.*relative error.*$", out + err, re.M)
    if wrong or not right:
        raise RuntimeError(f"{len(wrong)} of {len(wrong) + len(right)} failed: {wrong}\n" + "\n".join(told[:10]) + err[-1000:])
    return {"passed": len(right), "tolerance": "1e-4 to 1e-3 relative, f32 with TF32 off" if GPU else "1e-6 to 1e-5 relative"}


def precision():
    """The first steps in bf16 beside those in f32: the losses of the same seed and batches."""
    steps = 3 if TINY else 10
    for kind in ("f32", "bf16"):
        small = dict(model__size="nano" if TINY else "small", train__batch=4 if TINY else 64)
        train(config(f"losses-{kind}", train__precision=kind, optim__total_steps=steps, log__every_steps=1, **small), 100)
    return {"steps": steps, "largest_relative_difference": compared("losses-f32", "losses-bf16", steps, 0.02)}


def resume():
    """A run that is killed in the middle and started again beside one that is not."""
    return resumed("", 1e-3 if GPU else 0.0)


def repeat():
    """The same with deterministic algorithms: bit for bit."""
    return resumed("-exact", 0.0, train__deterministic=True)


def resumed(suffix, allowed, **change):
    whole, killed = f"whole{suffix}", f"killed{suffix}"
    steps, kill_behind = (14, 6) if TINY else (40, 17)
    small = dict(model__size="nano" if TINY else "small", train__batch=4 if TINY else 64, train__precision="f32", optim__total_steps=steps,
                 log__every_steps=1, checkpoint__every_steps=5, **change)
    train(config(whole, **small), 100)
    again = config(killed, **small)
    with subprocess.Popen(["./splitmask", "train", "--config", again], cwd=HERE, stderr=subprocess.DEVNULL) as process:
        until = time.monotonic() + within(90)
        while process.poll() is None and len(losses(killed)) < kill_behind:
            if time.monotonic() > until:
                process.kill()
                raise RuntimeError(f"the run took no {kill_behind} steps in time")
            time.sleep(0.01)
        process.kill()
    at = max(losses(killed), default=0)
    if at >= steps:
        raise RuntimeError("the run was over before it could be killed")
    train(again, 100)
    worst = compared(whole, killed, steps, allowed)
    return {"killed_behind_step": at, "largest_relative_difference": worst, "bit_for_bit": worst == 0.0}


def words():
    """Words that the device finds beside those that the pipeline finds: how often each came, and the losses."""
    steps = 4 if TINY else 20
    small = dict(model__size="nano" if TINY else "small", train__batch=4 if TINY else 64, train__precision="f32", optim__total_steps=steps, log__every_steps=1)
    for where in ("pipeline", "device"):
        train(config(f"words-{where}", codebook__where=where, **small), 100)
    worst = compared("words-pipeline", "words-device", steps, 1e-3 if GPU else 0.0)
    pipeline, device = (lines_of(f"words-{where}") for where in ("pipeline", "device"))
    # A function of the counts of words alone, so every word must be the same.
    told = [line["step"] for line, other in zip(pipeline, device) if line["token_entropy"] != other["token_entropy"]]
    if told:
        raise RuntimeError(f"the words differ from step {told[0]} on")
    return {"steps": steps, "token_entropy": pipeline[-1]["token_entropy"], "largest_relative_difference": worst}


def graph():
    """Steps that are recorded as a CUDA graph beside steps that are launched call by call: the losses of the same batches."""
    steps = 6 if TINY else 20
    small = dict(model__size="nano" if TINY else "small", train__batch=4 if TINY else 64, train__precision="f32", optim__total_steps=steps, log__every_steps=1)
    train(config("launched", **small), 100)
    log = train(config("graph", train__cuda_graph=True, **small), 100)
    told = [line for line in log.splitlines() if "CUDA graph" in line or "cuda_graph" in line]
    if not any("recorded a step's forward and backward" in line if GPU else "has no effect" in line for line in told):
        raise RuntimeError("no step was recorded: " + ("\n".join(told) or log[-1500:]))
    worst = compared("launched", "graph", steps, 1e-3 if GPU else 0.0)
    return {"steps": steps, "largest_relative_difference": worst, "bit_for_bit": worst == 0.0, "log": told[:3]}


def ranks():
    """Two ranks that share the device, by gloo, beside one process: the losses of the same batches."""
    steps = 4 if TINY else 20
    small = dict(model__size="nano" if TINY else "small", train__batch=4 if TINY else 64, train__precision="f32", optim__total_steps=steps, log__every_steps=1)
    train(config("one", **small), 100)
    path = config("two", ranks__backend="gloo", ranks__join_timeout_s=60.0, **small)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        meeting = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    logs = [open(HERE / f"rank-{rank}.log", "w+") for rank in range(2)]
    both = [
        subprocess.Popen(["./splitmask", "train", "--config", path], cwd=HERE, stderr=log, env={**os.environ, **meeting, "RANK": str(rank)})
        for rank, log in enumerate(logs)
    ]
    try:
        codes = [rank.wait(timeout=within(100)) for rank in both]
    finally:
        for rank in both:
            rank.kill()
    if codes != [0, 0]:
        raise RuntimeError(f"two ranks ended with {codes}: " + " | ".join((HERE / f"rank-{rank}.log").read_text()[-1000:] for rank in range(2)))
    return {"steps": steps, "largest_relative_difference": compared("one", "two", steps, 1e-3 if GPU else 1e-5)}


def memory():
    """A batch that does not fit is split, and the run goes on."""
    if not GPU:
        raise Skipped("a CPU's memory is not tried to its end")
    log = train(config("memory", train__batch=8192, train__accumulate=0, optim__total_steps=2, log__every_steps=1), 80)
    # What the program says when it splits; the place where it looks how many parts there are says "micro-batch" too.
    told = [line for line in log.splitlines() if "in more micro-batches" in line]
    if not told or not losses("memory"):
        raise RuntimeError("a batch of 8192 was neither split nor trained on: " + log[-1500:])
    return {"log": told[:3]}


def pipeline():
    """The data pipeline alone on all processors, with words and without."""
    images = 256 if TINY else 20000
    out, _ = splitmask("bench", "pipeline", "photos", "--codebook", "words.safetensors", "--images", images, "--level", "crop,colour,words,batch", "--json", limit=70)
    levels = json.loads(out)["levels"]
    return {"images_per_second": {level["level"]: round(level["ips"]) for level in levels}, "limit": levels[-1]["limit"]}


# What `bench step` tells of a step, and what it counts in it.
STEP = ("ms", "images_per_second", "mfu", "peak_memory_mb", "error")
CALLS = ("calls", "host_waits", "kernels", "launches", "device_waits", "error")


def measured_step(path, seconds, keys, *more):
    row = json.loads(splitmask("bench", "step", path, "--seconds", seconds, *more, "--json", limit=60)[0])["steps"][0]
    return {key: row.get(key) for key in keys}


def steps():
    """A training step of ours beside PyTorch's, by model, batch and precision."""
    rows, seconds = [], 0.5 if TINY else 4
    cases = [("nano", "vit_n", 4, False)] if TINY else [
        ("small", "vit_s", 64, True), ("small", "vit_s", 256, True), ("base", "vit_b", 64, True), ("base", "vit_b", 128, True), ("base", "vit_b", 64, False)]
    for ours, theirs, batch, bf16 in cases:
        row = {"model": ours, "batch": batch, "precision": "bf16" if bf16 else "f32"}
        name = config("step", model__size=ours, train__batch=batch, train__precision=row["precision"], log__every_steps=10)
        graphed = ("--set", "train.cuda_graph=true")
        # Calls apart from the time, which is worth having without them; then the same of a step that is recorded as a CUDA graph.
        for key, of, *more in [("ours", STEP), ("calls", CALLS, "--calls"), ("graph", STEP, *graphed), ("graph_calls", CALLS, "--calls", *graphed)]:
            if not GPU and key == "graph_calls":
                continue
            try:
                row[key] = measured_step(name, 0.5 if of is CALLS else seconds, of, *more)
            except Exception as error:
                row[key] = {"error": str(error)[-500:]}
        command = [PYTHON, "splitmask_step.py", "--model", theirs, "--image", IMAGE, "--patch", 16, "--batch", batch, "--seconds", seconds, "--device", DEVICE, "--threads", 1 if TINY else 2]
        compiled = [False, True] if (ours, batch, bf16) == ("base", 128, True) else [False]
        for kind in compiled:
            try:
                out, _ = run([*map(str, command), *(["--bf16"] if bf16 else []), *(["--compile"] if kind else [])], 100)
                found = re.search(r"([\d.]+) ms/step\s+([\d.]+) images/s\s+peak (\d+)", out)
                row["compiled" if kind else "eager"] = {"ms": float(found[1]), "images_per_second": float(found[2]), "peak_memory_mb": float(found[3]) * 1.048576}
            except Exception as error:
                row["compiled" if kind else "eager"] = {"error": str(error)[-500:]}
        for kind in ("eager", "compiled"):
            if row.get(kind, {}).get("images_per_second") and row["ours"].get("mfu"):
                row[kind]["mfu"] = row["ours"]["mfu"] * row[kind]["images_per_second"] / row["ours"]["images_per_second"]
        rows.append(row)
    if all("error" in row["ours"] and row["ours"]["error"] for row in rows):
        raise RuntimeError(json.dumps(rows))
    return rows


def largest():
    """The largest batch that fits, by doubling."""
    if not GPU:
        raise Skipped("a CPU's memory is not tried to its end")
    found = {}
    for size in ("small", "base"):
        batches = "256,512,1024,2048"
        out, _ = splitmask("bench", "step", config("largest", model__size=size), "--batch", batches, "--seconds", 1, "--json", limit=90)
        found[size] = [{key: row.get(key) for key in ("batch", "ms", "images_per_second", "mfu", "peak_memory_mb", "error")} for row in json.loads(out)["steps"]]
    return found


def whole_run():
    """A run with the real pipeline: how long it waits for data, images a second, use of the device."""
    seconds = 6 if TINY else 60
    train(config("run"), seconds)
    lines = [line for line in lines_of("run") if "images_per_second" in line][2:]
    if not lines:
        raise RuntimeError(f"no log line within {seconds} s behind the first two")
    middle = lambda key: sorted(line[key] for line in lines)[len(lines) // 2]
    found = {"steps": lines[-1]["step"], "images_per_second": middle("images_per_second"), "data_wait_ratio": middle("data_wait_ratio")}
    # The same step as one of those that were measured by themselves, with its share of the device's peak.
    alike = [row["ours"] for row in DONE.get("steps", []) if (row["model"], row["batch"], row["precision"]) == ("base", 128, "bf16") and row["ours"].get("mfu")]
    return found | {"mfu": row["mfu"] * found["images_per_second"] / row["images_per_second"] for row in alike}


# What tells whether the device computes right and how well it is used comes first; what is last is lost first.
PARTS = [("machine", machine), ("doctor", doctor), ("parity", parity), ("steps", steps), ("run", whole_run), ("resume", resume), ("memory", memory), ("pipeline", pipeline),
         ("words", words), ("graph", graph), ("precision", precision), ("repeat", repeat), ("ranks", ranks), ("largest", largest)]


def summary(found):
    lines = [f"GPU check, device {DEVICE}, {found['seconds']:.0f} s"]
    for name, _ in PARTS:
        part = found["parts"].get(name, {"skipped": "not begun"})
        head = f"{name:<10}"
        if "error" in part:
            lines.append(f"{head} WRONG: {part['error'][:600]}")
        elif "skipped" in part:
            lines.append(f"{head} skipped: {part['skipped']}")
        elif name == "steps":
            lines.append(f"{head} [{part['seconds']:.0f} s]")
            for row in part["result"]:
                text = lambda kind: "—" if kind not in row else row[kind].get("error") and "failed" or f"{row[kind]['ms']:.1f} ms"
                count = lambda key, of="calls": "—" if row.get(of, {}).get(key) is None else f"{row[of][key]:.0f}"
                share = lambda of: f" (MFU {100 * row[of]['mfu']:.1f} %)" if row.get(of, {}).get("mfu") else ""
                lines.append(f"{'':<10} {row['model']} {row['batch']} {row['precision']}: ours {text('ours')}{share('ours')}, as a graph {text('graph')}{share('graph')}, "
                             f"eager {text('eager')}, compiled {text('compiled')}; {count('kernels')} kernels, {count('launches')} launches "
                             f"(as a graph {count('launches', 'graph_calls')}), {count('host_waits')} host waits a step")
        else:
            lines.append(f"{head} [{part['seconds']:.0f} s] {json.dumps(part['result'])[:900]}")
    return "\n".join(lines) + "\n"


def main():
    shutil.rmtree(HERE / "runs", ignore_errors=True)
    found = {"device": DEVICE, "tiny": TINY, "began": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "parts": {}}
    for name, part in PARTS:
        began = time.monotonic()
        print(f"{name} …", flush=True)
        try:
            if began - BEGAN > BUDGET:
                raise Skipped(f"the {BUDGET:g} s were over")
            DONE[name] = part()
            found["parts"][name] = {"result": DONE[name], "seconds": time.monotonic() - began}
        except Skipped as reason:
            found["parts"][name] = {"skipped": str(reason)}
        except Exception as error:  # The fence: whatever it was, the next part begins.
            found["parts"][name] = {"error": f"{type(error).__name__}: {error}", "seconds": time.monotonic() - began}
        found["seconds"] = time.monotonic() - BEGAN
        (OUT / "gpu_check.json").write_text(json.dumps(found, indent=1))
    text = summary(found)
    (OUT / "gpu_check.txt").write_text(text)
    print(text)
    shutil.rmtree(HERE / "runs", ignore_errors=True)
    return 1 if any("error" in part for part in found["parts"].values()) else 0


if __name__ == "__main__":
    sys.exit(main())
