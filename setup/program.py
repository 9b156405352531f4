"""How scripts ask the program, tell what they do, and sum up."""
import os
import resource
import statistics
import subprocess

SPLITMASK = os.environ.get("SPLITMASK", "target/debug/splitmask")
# Visual words of the small encoders.
WORDS = ["--words", "512", "--image", "48", "--patch", "8", "--seed", "0"]


def splitmask(*arguments: str, capture: bool = False) -> str:
    done = subprocess.run([SPLITMASK, *arguments], stdout=subprocess.PIPE if capture else None, text=True)
    if done.returncode:
        raise subprocess.CalledProcessError(done.returncode, [SPLITMASK, *arguments])
    return done.stdout or ""


def say(text: str) -> None:
    print(f"[results] {text}", flush=True)


def processor_seconds() -> float:
    """Of all programs that this one ran to their end; on a machine that others use too, a truer cost than the clock's."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def spread(values: list) -> str:
    mean = 100 * statistics.mean(values)
    return f"{mean:.1f} ± {100 * statistics.stdev(values):.1f}" if len(values) > 1 else f"{mean:.1f}"
