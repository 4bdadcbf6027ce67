#!/usr/bin/env bash
# Installs the Debian packages that a group of make targets needs and that are missing.
#
#   third_party/setup.sh [build|check|fuzz|profile|bench|trust|all]...     (default: build)
#
# Does nothing, and says nothing, when all is there. Needs root or passwordless sudo only to install;
# without them it prints the one line to run. KEEL_SKIP_SETUP=1 skips the check, for machines whose
# compilers and libraries come from elsewhere. README.md beside this file says why each was chosen.
set -euo pipefail

# One line a package: group, package, what it is for.
packages() {
  cat <<'END'
build    make                 the front: make demo, make test
build    cmake                configures the build
build    ninja-build          runs the build
build    g++                  compiles
build    pkg-config           the install test builds a program through it
build    libxxhash-dev        record hashes of the log (XXH3, compiled in)
build    liburing-dev         several log writes under way at a time (io_uring)
build    libcli11-dev         command lines of the tools
build    nlohmann-json3-dev   --json of the tools
build    libjemalloc-dev      objects below a page (its static archive, under another prefix)
build    binutils             ld and objcopy, which give it that prefix
build    doctest-dev          the tests
build    libfuse3-dev         a file system of the tests that fails, loses and hangs
build    fuse3                lets a user who is not root mount it (fusermount3)
build    xfsprogs             file systems that the tests make, mount and crash
build    libbenchmark-dev     the benchmarks, which the tests run for a moment
check    clang                thread-safety analysis, a second compiler's warnings
check    llvm                 reads what a coverage build has counted
check    clang-format         the format check
check    clang-tidy           static analysis
check    valgrind             is told of the pool's buffers, if its header is there at build time
check    systemtap-sdt-dev    probes for perf and bpftrace, likewise
fuzz     clang                compiles the fuzzers
fuzz     libclang-rt-dev      libFuzzer and the sanitizers' run-time libraries
fuzz     llvm                 names in their reports (llvm-symbolizer)
profile  linux-perf           samples for the call tree and the flame graph
profile  python3              folds the samples and draws the flame graph
bench    libjemalloc2         a peer of the scoreboard's memory rows
bench    libmimalloc2.0       likewise
bench    libtcmalloc-minimal4 likewise
bench    libtbbmalloc2        likewise
bench    linux-perf           the share of locks in a row's time
bench    python3              a program that is run under a preloaded malloc
bench    sqlite3              a program that is run under a preloaded malloc
bench    librocksdb-dev       a peer of the scoreboard's journal rows
bench    libsqlite3-dev       likewise
bench    liblmdb-dev          likewise
bench    libwiredtiger-dev    likewise
trust    python3              runs the campaigns and the mutants
trust    clang                compiles the fuzzers, and the simulator with its switch points
trust    libclang-rt-dev      libFuzzer and the sanitizers' run-time libraries
trust    llvm                 names in their reports (llvm-symbolizer)
trust    qemu-system-x86      virtual machines that are killed with their file systems
END
}

fail() {
  echo "third_party/setup.sh: $*" >&2
  exit 1
}

# Prints the lines of packages() that the groups in "$@" ask for. Every group stands on build.
wanted_of() {
  local pattern="build"
  for group in "$@"; do
    case "$group" in
      build) ;;
      check | fuzz | profile | bench | trust) pattern+="|$group" ;;
      all) pattern=".*" ;;
      *) fail "unknown group '$group'; there are: build check fuzz profile bench trust all" ;;
    esac
  done
  packages | grep -E "^($pattern) "
}

# Prints those lines of stdin whose package is not installed.
missing_of() {
  local lines installed
  lines=$(cat)
  # dpkg-query fails if it does not know one of the names; what it prints of the others counts.
  # shellcheck disable=SC2046
  installed=$(dpkg-query -W -f '${db:Status-Status} ${Package}\n' \
    $(awk '{print $2}' <<<"$lines") 2>/dev/null || true)
  awk 'NR == FNR { if ($1 == "installed") have[$2] = 1; next } !($2 in have)' \
    <(echo "$installed") <(echo "$lines")
}

# "$@": the command that makes root of us, `env` if we are.
install_as_root() {
  # Another apt-get may have the lists just now.
  for pause in 5 15 0; do
    "$@" apt-get update -qq && break
    echo "apt-get update failed" >&2
    sleep "$pause"
  done  # else with the lists there are
  # shellcheck disable=SC2086
  "$@" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
    -o DPkg::Lock::Timeout=120 $names
}

[[ "${KEEL_SKIP_SETUP:-0}" == 1 ]] && exit 0
wanted=$(wanted_of "$@")
if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
  echo "third_party/setup.sh: not a Debian system, cannot look; what is needed:" >&2
  sed 's/^/  /' <<<"$wanted" >&2
  exit 0
fi

missing=$(missing_of <<<"$wanted")
[[ -z "$missing" ]] && exit 0
names=$(awk '{print $2}' <<<"$missing" | paste -sd ' ')

echo "keel needs packages that are missing:"
awk '{ name = $2; $1 = $2 = ""; printf "  %-20s %s\n", name, substr($0, 3) }' <<<"$missing"
if [[ $EUID -eq 0 ]]; then
  install_as_root env
elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
  install_as_root sudo
else
  fail "installing them takes root. Run: sudo apt-get install --no-install-recommends $names"
fi
still=$(missing_of <<<"$wanted" | awk '{print $2}' | paste -sd ' ')
[[ -z "$still" ]] || fail "could not install: $still"
