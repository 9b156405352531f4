"""unpack_libtorch.py DIR TORCH_WHEEL [NVIDIA_WHEEL ...]: lays the CPU part of libtorch into DIR/lib and DIR/include.

libtorch_cpu.so of the CUDA build links libcudart and libcupti, so those two come along; its libraries look for each other
in their own folder ($ORIGIN). Everything else of CUDA stays out: 450 MB instead of 3 GB.
"""

import pathlib
import shutil
import sys
import zipfile

KEEP = {"libtorch_cpu.so", "libtorch.so", "libc10.so", "libgomp.so.1", "libtorch_global_deps.so"}
NVIDIA = {"libcudart.so.13", "libcupti.so.13"}


def copy(archive: zipfile.ZipFile, member: zipfile.ZipInfo, target: pathlib.Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(member) as source, target.open("wb") as sink:
        shutil.copyfileobj(source, sink, 1 << 20)


def main() -> None:
    root, torch_wheel, *nvidia = sys.argv[1:]
    root = pathlib.Path(root)
    with zipfile.ZipFile(torch_wheel) as archive:
        members = [m for m in archive.infolist() if not m.is_dir()]
        total = len(members)
        for done, member in enumerate(members):
            name = pathlib.PurePosixPath(member.filename)
            if name.parts[:2] == ("torch", "lib") and name.name in KEEP:
                copy(archive, member, root / "lib" / name.name)
            elif name.parts[:2] == ("torch", "include"):
                copy(archive, member, root / pathlib.Path(*name.parts[1:]))
            if sys.stderr.isatty() and done % 500 == 0:
                print(f"\r  {100 * done // total} %", end="", file=sys.stderr)
    for wheel in nvidia:
        with zipfile.ZipFile(wheel) as archive:
            for member in archive.infolist():
                name = pathlib.PurePosixPath(member.filename).name
                if name in NVIDIA:
                    copy(archive, member, root / "lib" / name)
    missing = (KEEP | NVIDIA) - {p.name for p in (root / "lib").iterdir()}
    if missing:
        sys.exit(f"the wheels lack {', '.join(sorted(missing))}")
    # torch-sys reads the version from here when it checks that the libraries fit.
    (root / "build-version").write_text("2.11.0\n")


main()
