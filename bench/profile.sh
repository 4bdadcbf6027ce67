#!/usr/bin/env bash
# Records a benchmark of the release build with perf, draws a flame graph and says where the time
# went.
#
#   bench/profile.sh [--name NAME] [-- PROGRAM ARG...]
#
# Default: the commit of 64 KiB objects with forces, for five seconds. PROGRAM is a path, or the
# name of a program below .build/release/bench, such as cil/force_bench or scoreboard.
# Makes .build/profile/NAME.svg, NAME.txt (the table, printed as well) and NAME.folded (the stacks).
#
# Samples the CPU's cycle counter, or the software clock where there is none (most virtual
# machines). As a normal user it asks for user code only if the kernel's settings allow no more; the
# table says so. Stacks are followed by frame pointers. The C library has none: its functions'
# callers may be missing, and a stack that broke in it stands on its own at the bottom of the graph.
# Exit status 77, skipped, with the reason: no perf, no python3, or nothing may be recorded at all.
set -euo pipefail
cd "$(dirname "$0")/.."

skip() {
  echo "profile: skipped: $*" >&2
  exit 77
}

fail() {
  echo "profile: $*" >&2
  exit 1
}

name=""
while (($#)); do
  case "$1" in
    --name) [[ -n "${2:-}" ]] || fail "--name wants a name"; name=$2; shift 2 ;;
    --) shift; break ;;
    -h | --help) sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "$0"; exit 0 ;;
    *) fail "unknown option '$1'; see --help" ;;
  esac
done
if (($# == 0)); then
  set -- cil/commit_bench --benchmark_filter=commit_64k_forced --benchmark_min_time=5
  name=${name:-commit_64k_forced}
fi
program=$1
shift
name=${name:-$(basename "$program")}
[[ "$name" != */* ]] || fail "--name must be a plain name"

command -v perf >/dev/null || skip "perf is not installed (third_party/setup.sh profile)"
command -v python3 >/dev/null || skip "python3 is not installed (third_party/setup.sh profile)"

[[ "$program" == */bench/* || -x "$program" ]] || program=.build/release/bench/$program
if [[ "$program" == .build/release/* ]]; then
  cmake --preset release >/dev/null
  cmake --build --preset release --target bench/all >/dev/null ||
    fail "the release build failed; run it to see why"
fi
[[ -x "$program" && ! -d "$program" ]] || fail "there is no program $program"

out=.build/profile
mkdir -p "$out"
data=$(mktemp "$out/perf.XXXXXX")
trap 'rm -f "$data" "$data.old" "$data.log"' EXIT

# shellcheck source=bench/perf_event.sh
source bench/perf_event.sh
event=$(choose_event "$data")
paranoid=$(cat /proc/sys/kernel/perf_event_paranoid 2>/dev/null || echo unknown)
[[ -n "$event" ]] || skip "perf may record nothing here" \
  "(kernel.perf_event_paranoid is $paranoid): $(head -n 1 "$data.log")"

# The program's own output is kept out of the way unless it fails.
echo "profile: recording $program" >&2
# A case of Google Benchmark that ends with an error exits with 0.
if ! perf record -q -F 999 -e "$event" --call-graph fp -o "$data" -- "$program" "$@" \
    >"$data.log" 2>&1 || grep -q 'ERROR OCCURRED' "$data.log"; then
  cat "$data.log" >&2
  fail "$program failed"
fi
event=$(perf evlist -i "$data" 2>/dev/null | grep -v '^#' | head -n 1)
perf script -i "$data" -F comm,tid,ip,sym,dso 2>/dev/null | python3 bench/fold_stacks.py \
  >"$out/$name.folded"
python3 bench/flamegraph.py --title "$name ($event)" <"$out/$name.folded" >"$out/$name.svg"
{
  echo "$name: $(basename "$program") $*"
  echo "event $event, 999 samples a second of CPU time; time asleep (waiting for the disk) has none"
  [[ "$event" != *:u* ]] || echo "user code only: the kernel's share is not known"
  echo
  python3 bench/time_shares.py <"$out/$name.folded"
} | tee "$out/$name.txt"
echo "profile: $out/$name.svg and $out/$name.txt" >&2
