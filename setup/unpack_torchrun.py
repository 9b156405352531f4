"""unpack_torchrun.py DIR TORCH_WHEEL LIBTORCH TYPING_EXTENSIONS: lays torchrun, PyTorch's launcher, into DIR without CUDA (80 MB instead of 4.7 GB).

torchrun is Python, but `import torch` loads libtorch_python.so, which in the wheel of PyPI is linked to the libraries of CUDA. The launcher calls none of
them, so small stand-ins take their place: each has the symbols that libtorch_python.so asks for, and what is called at the load of the library (places
where GPUs are registered) gets a page of zeros. What this torch computes on a GPU would be nonsense; it serves DIR/bin/torchrun and nothing else. The CPU
part is LIBTORCH, laid out before by unpack_libtorch.py from the same wheel. Needs gcc, nm and readelf, and the Python that the wheel is for.
"""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import zipfile

STAND_IN = "libtorch_cuda.so"
EMPTY = ("libc10_cuda.so", "libcufile.so.0", "libtorch_global_deps.so")
LEFT_OUT = ("include", "share", "test")


def unpack(wheel: pathlib.Path, root: pathlib.Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.infolist():
            name = pathlib.PurePosixPath(member.filename)
            if member.is_dir() or name.parts[0] not in ("torch", "torchgen"):
                continue
            part = name.parts[1]
            if part in LEFT_OUT or part == "bin" and name.name != "torch_shm_manager":
                continue
            if part == "lib" and name.name not in ("libtorch_python.so", "libshm.so"):
                continue
            target = root / name
            target.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(member) as source, target.open("wb") as sink:
                shutil.copyfileobj(source, sink, 1 << 20)
    (root / "torch/bin/torch_shm_manager").chmod(0o755)


def listed(*command: object) -> list[list[str]]:
    text = subprocess.run([str(word) for word in command], check=True, capture_output=True, text=True).stdout
    return [words for words in map(str.split, text.splitlines()) if words]


def symbols(library: pathlib.Path, which: str) -> set[str]:
    """Symbols with their versions; those that may be missing (weak) are left out."""
    return {words[-1] for words in listed("nm", "-D", which, library) if words[-2] not in "wv"}


def stand_in(root: pathlib.Path, name: str, wanted: set[str], called: set[str], version: str | None = None) -> None:
    code = ['.section .note.GNU-stack,"",@progbits', ".text"]
    data = [".data", ".balign 16", "zeros: .zero 4096"]
    for symbol in sorted(wanted):
        if symbol in called:
            code += [f".globl {symbol}", f".type {symbol}, @function", f"{symbol}: leaq zeros(%rip), %rax", "ret"]
        elif symbol.startswith("_ZTI"):  # a type: Python's bindings read its name
            text = f'1: .asciz "{symbol[4:]}"'
            data += [".balign 16", f".globl {symbol}", f".type {symbol}, @object", f"{symbol}: .quad _ZTVN10__cxxabiv117__class_type_infoE+16, 1f"]
            data += [f".size {symbol}, 16", text]
        else:
            data += [".balign 16", f".globl {symbol}", f".type {symbol}, @object", f"{symbol}: .zero 1024", f".size {symbol}, 1024"]
    source = root / "stand_in.s"
    source.write_text("\n".join(code + data) + "\n")
    more = []
    if version:
        script = root / "stand_in.map"
        script.write_text(f"{version} {{ global: *; }};\n")
        more = [f"-Wl,--version-script={script}"]
    library = root / "torch/lib" / name
    subprocess.run(["gcc", "-shared", "-o", library, f"-Wl,-soname,{name}", source, "-lstdc++", *more], check=True)
    for left in root.glob("stand_in.*"):
        left.unlink()


def main() -> None:
    root, wheel, libtorch, typing_extensions = map(pathlib.Path, sys.argv[1:])
    unpack(wheel, root)
    lib = root / "torch/lib"
    for file in (libtorch / "lib").iterdir():
        if file.name not in EMPTY:
            (lib / file.name).symlink_to(os.path.relpath(file, lib))
    python = lib / "libtorch_python.so"
    wanted = symbols(python, "--undefined-only")
    standard = subprocess.run(["gcc", "-print-file-name=libstdc++.so.6"], check=True, capture_output=True, text=True).stdout.strip()
    there = {s.partition("@")[0] for file in [*lib.iterdir(), pathlib.Path(standard)] if file != python for s in symbols(file, "--defined-only")}
    called = {words[4].partition("@")[0] for words in listed("readelf", "-rW", python) if len(words) > 4 and "JUMP_SLO" in words[2]}
    plain = {s for s in wanted if "@" not in s and s not in there and not re.match("_?Py", s)}
    stand_in(root, STAND_IN, plain, called)
    for name in EMPTY:
        stand_in(root, name, set(), set())
    cudnn = {s.partition("@")[0] for s in wanted if s.endswith("@libcudnn.so.9")}
    stand_in(root, "libcudnn.so.9", cudnn, called | cudnn, "libcudnn.so.9")
    shutil.copy(typing_extensions, root / "typing_extensions.py")
    program = root / "bin/torchrun"
    program.parent.mkdir()
    # It finds its packages beside itself and nowhere else, whatever is installed on this machine.
    program.write_text(
        f"#!{os.path.realpath(sys.executable)} -IS\nimport pathlib, sys\nsys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))\n"
        "from torch.distributed.run import main\nsys.exit(main())\n"
    )
    program.chmod(0o755)
    subprocess.run([program, "--help"], check=True, stdout=subprocess.DEVNULL)


main()
