#!/usr/bin/env bash
# Runs the fuzzers of .build/fuzz, one after the other.
#
#   tests/fuzz/run.sh [--seconds N] [--only NAME] [--merge]
#
# What they find new stands in .build/fuzz/corpus/NAME and is used again by the next run; an input that
# breaks something stands in .build/fuzz/crashes, and belongs into tests/fuzz/corpus/NAME, as crash-*, with
# the mend. --merge makes tests/fuzz/corpus/NAME the least set of inputs that reaches what all of them
# reach, crash-* kept. One line a fuzzer: property=fuzz.NAME tried=EXECUTIONS failures=N seconds=S.
set -euo pipefail
cd "$(dirname "$0")/../.."

seconds=60
only=""
merge=0
while (($#)); do
  case "$1" in
    --seconds) seconds=$2; shift 2 ;;
    --only) only=$2; shift 2 ;;
    --merge) merge=1; shift ;;
    *) echo "usage: tests/fuzz/run.sh [--seconds N] [--only NAME] [--merge]" >&2; exit 2 ;;
  esac
done

# Longest input of each: what its program can use.
declare -A longest=([log_image]=400 [superblock]=200 [checkpoint]=4096 [tool]=300 [pool]=1200
  [journal]=500)
names=(journal log_image pool checkpoint superblock tool)
bin=.build/fuzz/tests/fuzz
found=.build/fuzz/corpus
crashes=.build/fuzz/crashes
mkdir -p "$crashes" "$found"
[[ -d $found/seeds ]] || "$bin/keel_fuzz_seeds" "$found/seeds"

# Images are large and short-lived: a small quarantine keeps their memory warm.
export ASAN_OPTIONS=quarantine_size_mb=16:allocator_release_to_os_interval_ms=-1:malloc_context_size=12
export UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1
failed=0
for name in "${names[@]}"; do
  [[ -z $only || $only == "$name" ]] || continue
  mkdir -p "$found/$name" "$found/seeds/$name" "tests/fuzz/corpus/$name"
  log=.build/fuzz/$name.log
  if ((merge)); then
    fresh=$(mktemp -d)
    "$bin/keel_fuzz_$name" -merge=1 -close_fd_mask=3 -max_len="${longest[$name]}" "$fresh" \
      "tests/fuzz/corpus/$name" "$found/$name" "$found/seeds/$name" >"$log" 2>&1
    find "tests/fuzz/corpus/$name" -type f ! -name 'crash-*' -delete
    find "$fresh" -type f -exec mv -t "tests/fuzz/corpus/$name" {} +
    rmdir "$fresh"
    echo "fuzz.$name: $(find "tests/fuzz/corpus/$name" -type f | wc -l) inputs," \
      "$(du -sb "tests/fuzz/corpus/$name" | cut -f1) bytes"
    continue
  fi
  start=$(date +%s)
  failures=0
  "$bin/keel_fuzz_$name" -max_total_time="$seconds" -timeout=30 -rss_limit_mb=3072 \
    -max_len="${longest[$name]}" -close_fd_mask=3 -print_final_stats=1 -use_value_profile=1 \
    -artifact_prefix="$crashes/$name-" "$found/$name" "tests/fuzz/corpus/$name" \
    "$found/seeds/$name" >"$log" 2>&1 || failures=1
  tried=$(awk '/^stat::number_of_executed_units:/ { print $2 }' "$log")
  reached=$(grep -oE 'cov: [0-9]+ ft: [0-9]+' "$log" | tail -1 || true)
  echo "property=fuzz.$name tried=${tried:-0} failures=$failures" \
    "seconds=$(($(date +%s) - start)) ${reached:-cov: 0}"
  if ((failures)); then
    failed=1
    tail -n 40 "$log" >&2
  fi
done
exit $failed
