# shellcheck shell=bash
# For scripts that record with perf (source it).

# choose_event DATA: prints the best event that may be recorded here and that gives samples; nothing
# if there is none, and then DATA.log says why. Overwrites DATA. The CPU's cycle counter, or the
# software clock where there is none (most virtual machines); user code only if the kernel's
# settings allow no more. perf takes the software clock by itself where there is no cycle counter,
# so the recording is asked what it holds.
choose_event() {
  local data=$1 event
  for event in cycles cpu-clock cycles:u cpu-clock:u; do
    # shellcheck disable=SC2016
    if perf record -q -F 999 -e "$event" -o "$data" -- \
        sh -c 'i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done' >/dev/null 2>"$data.log" &&
      perf script -i "$data" 2>/dev/null | grep -c . >/dev/null; then
      echo "$event"
      return
    fi
  done
}
