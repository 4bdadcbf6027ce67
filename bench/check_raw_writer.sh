#!/usr/bin/env bash
# Holds the raw writer, the scoreboard's limit for write bandwidth, against fio on the same file:
# same blocks, depth and flushes, the same block of memory over and over (fio has no other way), in
# turn, medians of five pairs.
#
#   bench/check_raw_writer.sh [DIR] [DEPTH]     (default: the current directory, depth 1)
#
# Exit status: 0 if the raw writer reaches at least 90 % of fio, 1 if not, 77 (skipped) without fio.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
raw_writer="$root/.build/release/bench/raw_writer"
dir=${1:-.}
depth=${2:-1}
pairs=5
block=$((4 << 20)) unit=$((24 << 20)) file_bytes=$((480 << 20)) units=40

if ! command -v fio >/dev/null; then
  echo "check_raw_writer: skipped: fio is not installed (apt-get install fio)" >&2
  exit 77
fi
if [[ ! -x "$raw_writer" ]]; then
  echo "check_raw_writer: build it first: cmake --build --preset release --target raw_writer" >&2
  exit 1
fi
work=$(mktemp -d -p "$dir" raw-check.XXXXXX)
trap 'rm -rf "$work"' EXIT

run_raw() {
  "$raw_writer" "$work/file" --block "$block" --depth "$depth" --unit "$unit" \
    --file-bytes "$file_bytes" --units "$units" --reuse-memory
}
# Depth 1 is one thread that waits for each write; more is asynchronous. Terse field 48: KiB/s
# written.
run_fio() {
  local engine=psync
  ((depth == 1)) || engine=libaio
  fio --name=raw --filename="$work/file" --rw=write --direct=1 --bs="$block" --ioengine="$engine" \
    --iodepth="$depth" --fdatasync="$((unit / block))" --size="$file_bytes" \
    --io_size="$((unit * units))" --overwrite=1 --output-format=terse --terse-version=3 |
    awk -F';' '{ printf "%.0f\n", $48 * 1024 }'
}
median() { sort -n | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }

run_raw >/dev/null # makes the file
run_fio >/dev/null
for ((pair = 0; pair < pairs; ++pair)); do
  run_raw >>"$work/ours"
  run_fio >>"$work/fio"
done
awk -v ours="$(median <"$work/ours")" -v fio="$(median <"$work/fio")" -v depth="$depth" 'BEGIN {
  printf "depth %d: raw writer %.0f MB/s, fio %.0f MB/s, ratio %.3f\n", depth, ours / 1e6,
    fio / 1e6, ours / fio
  exit !(ours >= 0.9 * fio)
}'
