#!/usr/bin/env bash
# Prints which share of a program's time is spent in locks and in the kernel, as JSON.
#
#   bench/lock_share.sh [--within PATTERN] [--without PATTERN] [--share PATTERN]
#                       DIRECTORY PROGRAM [ARG...]
#
# Watches the program with perf and counts the samples that have a frame of --within in their stack
# (an allocating call of keel, unless it is given) and none of --without. With --share, the share of
# the samples that match it is printed as well. The recording goes to DIRECTORY. Exit status 77, with
# the reason, where perf may not record user and kernel code.
set -euo pipefail
here=$(dirname "$0")
# shellcheck source=bench/perf_event.sh
source "$here/perf_event.sh"

skip() {
  echo "lock_share: $*" >&2
  exit 77
}

options=(--within 'keel::Pool::kv(malloc|free)')
while [[ "$1" == --* ]]; do
  options+=("$1" "$2")
  shift 2
done
data=$1/lock_share.perf
shift
trap 'rm -f "$data" "$data.old" "$data.log"' EXIT
command -v perf >/dev/null || skip "perf is not installed (third_party/setup.sh profile)"
command -v python3 >/dev/null || skip "python3 is not installed (third_party/setup.sh profile)"
event=$(choose_event "$data")
[[ -n "$event" ]] || skip "perf may record nothing here: $(head -n 1 "$data.log")"
[[ "$event" != *:u ]] || skip "perf may not record the kernel here"

if ! perf record -q -F 999 -e "$event" --call-graph fp -o "$data" -- "$@" >"$data.log" 2>&1; then
  cat "$data.log" >&2
  exit 1
fi
perf script -i "$data" -F comm,tid,ip,sym,dso 2>/dev/null | python3 "$here/fold_stacks.py" |
  python3 "$here/time_shares.py" "${options[@]}" --json
