#!/usr/bin/env bash
# On the machine with the GPU, in the folder that setup/gpu_check.sh made. Finds torch's libtorch, unpacks the programs, runs the parts.
#   PYTHON=python3   the Python that has torch 2.11      OUT=FOLDER   where the answers go (default: out beside this file)
#   DEVICE=cuda      or cpu                              TINY=1       sizes that only try the script itself
#   BUDGET=350       seconds for everything
set -euo pipefail
cd "$(dirname "$0")"
export DEVICE=${DEVICE:-cuda} OUT=${OUT:-$PWD/out} PYTHON=${PYTHON:-python3}
mkdir -p "$OUT"
for program in splitmask parity; do
  [ -e $program ] || gunzip -k $program.gz
  chmod +x $program
done
# libtorch and, for CUDA, the libraries of the nvidia wheels beside it. LIBTORCH names another one.
if [ -z "${LIBTORCH:-}" ]; then
  LIBTORCH=$($PYTHON -c 'import importlib.util, os; print(os.path.dirname(importlib.util.find_spec("torch").origin))') ||
    { echo "$PYTHON has no torch: pip install torch==2.11.0, or name another Python (PYTHON=…), or libtorch (LIBTORCH=…)" >&2; exit 64; }
fi
libraries=$LIBTORCH/lib
for folder in "$LIBTORCH"/../nvidia/*/lib; do [ -d "$folder" ] && libraries=$libraries:$folder; done
export LD_LIBRARY_PATH=$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
exec "$PYTHON" check.py
