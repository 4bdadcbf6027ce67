#!/usr/bin/env bash
# Runs the fuzzers of .build/fuzz, one after the other.
#
#   tests/fuzz/run.sh [--seconds N] [--only NAME] [--merge]
#
# N seconds each (60). What they find new stands in .build/fuzz/corpus/NAME and is used again by the next
# run; an input that breaks something stands in .build/fuzz/crashes, and belongs into
# tests/fuzz/corpus/NAME, as crash-*, with the mend. --merge makes tests/fuzz/corpus/NAME the least set of
# inputs that reaches what all of them reach, crash-* kept. One line a fuzzer:
#
#   property=fuzz.NAME tried=EXECUTIONS failures=N seconds=S cpu_seconds=S cov: EDGES ft: FEATURES
#
# EXECUTIONS are those of new inputs: the corpus, with which each run begins, is not counted.
#
# Ctrl-C ends the run after the line of the fuzzer that was at work. Exit code: 0 all is well; 1 an input
# broke something; 2 wrong use; 130 interrupted.
set -euo pipefail
cd "$(dirname "$0")/../.."

# Longest input of each: what its program can use.
declare -A longest=([log_image]=400 [superblock]=200 [checkpoint]=4096 [tool]=300 [pool]=1200
  [journal]=600)
names=(journal log_image pool checkpoint superblock tool)

misused() {
  echo "run.sh: $*" >&2
  echo "usage: tests/fuzz/run.sh [--seconds N] [--only NAME] [--merge]" >&2
  exit 2
}

seconds=60
only=""
merge=0
while (($#)); do
  case "$1" in
    --seconds | --only) [[ $# -ge 2 ]] || misused "$1 needs a value" ;;&
    --seconds) seconds=$2; shift 2 ;;
    --only) only=$2; shift 2 ;;
    --merge) merge=1; shift ;;
    *) misused "unknown argument '$1'" ;;
  esac
done
[[ $seconds =~ ^[1-9][0-9]{0,6}$ ]] || misused "--seconds takes a number from 1 on, not '$seconds'"
if [[ -n $only ]]; then
  [[ -n ${longest[$only]:-} ]] || misused "no fuzzer '$only'; there are: ${names[*]}"
  names=("$only")
fi

bin=.build/fuzz/tests/fuzz
found=.build/fuzz/corpus
crashes=.build/fuzz/crashes
for name in "${names[@]/#/fuzz_}" fuzz_seeds; do
  [[ -x $bin/keel_$name ]] || { echo "run.sh: $bin/keel_$name is not built: make fuzz" >&2; exit 2; }
done
mkdir -p "$crashes" "$found"
# Made anew each time: that takes a moment, and what they are made of may have changed.
rm -rf "$found/seeds"
"$bin/keel_fuzz_seeds" "$found/seeds"

# Images are large and short-lived: a small quarantine keeps their memory warm.
export ASAN_OPTIONS=quarantine_size_mb=16:allocator_release_to_os_interval_ms=-1:malloc_context_size=12
export UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1
interrupted=0
trap 'interrupted=1' INT TERM
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# The least set that reaches everything, of what is in the tree and what was found.
merge_one() {
  local name=$1 fresh=$scratch/$1
  mkdir "$fresh"
  "$bin/keel_fuzz_$name" -merge=1 -close_fd_mask=3 -max_len="${longest[$name]}" "$fresh" \
    "tests/fuzz/corpus/$name" "$found/$name" "$found/seeds/$name" >".build/fuzz/$name.log" 2>&1
  ((!interrupted)) || return 0
  find "tests/fuzz/corpus/$name" -type f ! -name 'crash-*' -delete
  find "$fresh" -type f -exec mv -t "tests/fuzz/corpus/$name" {} +
  echo "fuzz.$name: $(find "tests/fuzz/corpus/$name" -type f | wc -l) inputs," \
    "$(du -sb "tests/fuzz/corpus/$name" | cut -f1) bytes"
}

# Inputs are as long as they may be from the beginning: libFuzzer would let them grow with the number of
# executions, of which there are too few for that. With -entropic=1 keeping book of so many features
# takes two thirds of the time.
fuzz_one() {
  local name=$1 log=.build/fuzz/$1.log
  "$bin/keel_fuzz_$name" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=3072 -len_control=0 \
    -max_len="${longest[$name]}" -close_fd_mask=3 -print_final_stats=1 -use_value_profile=1 -entropic=0 \
    -artifact_prefix="$crashes/$name-" "$found/$name" "tests/fuzz/corpus/$name" \
    "$found/seeds/$name" >"$log" 2>&1
}

TIMEFORMAT='%R %U %S'
failed=0
for name in "${names[@]}"; do
  mkdir -p "$found/$name" "$found/seeds/$name" "tests/fuzz/corpus/$name"
  if ((merge)); then
    merge_one "$name"
  else
    failures=0
    # Interrupted, it says so with a code of its own; what it has found by then is kept.
    { time fuzz_one "$name"; } 2>"$scratch/time" || failures=$((!interrupted))
    read -r took user system < <(tail -n 1 "$scratch/time")
    log=.build/fuzz/$name.log
    tried=$(awk '/^stat::number_of_executed_units:/ { print $2 }' "$log")
    # Interrupted, it has no statistics: the last line that counts then.
    [[ -n $tried ]] || tried=$(grep -oE '^#[0-9]+' "$log" | tail -n 1 | tr -d '#' || true)
    # The corpus comes first, and is not new; who did not come to its end has tried nothing new.
    known=$(awk '/^#[0-9]+\tINITED/ { print substr($1, 2); exit }' "$log")
    tried=$((${tried:-0} - ${known:-${tried:-0}}))
    reached=$(grep -oE 'cov: [0-9]+ ft: [0-9]+' "$log" | tail -n 1 || true)
    echo "property=fuzz.$name tried=$tried failures=$failures seconds=${took%.*}" \
      "cpu_seconds=$(awk -v u="$user" -v s="$system" 'BEGIN { print int(u + s + 0.999) }')" \
      "${reached:-cov: 0}"
    if ((failures)); then
      failed=1
      tail -n 40 "$log" >&2
    fi
  fi
  if ((interrupted)); then
    echo "run.sh: interrupted" >&2
    exit 130
  fi
done
exit $failed
