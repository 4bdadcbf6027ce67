#!/bin/sh
# Does a program that has files in a directory of its own leave it behind when a signal ends it?
# check_interrupt.sh PROGRAM ARGUMENTS: it is started with --dir, and gets SIGTERM once it has files.
set -eu
dir=$(mktemp -d "${TMPDIR:-/var/tmp}/keel-interrupt-XXXXXX")
trap 'rm -rf "$dir"' EXIT
"$@" --dir "$dir" >"$dir.out" 2>&1 &
program=$!
until [ -n "$(find "$dir" -type f)" ]; do
  if ! kill -0 "$program" 2>/dev/null; then
    cat "$dir.out" >&2
    echo "check_interrupt: $1 made no files" >&2
    exit 1
  fi
  sleep 0.1
done
kill -TERM "$program"
status=0
wait "$program" || status=$?
rm -f "$dir.out"
left=$(find "$dir" -mindepth 1)
if [ -n "$left" ]; then
  echo "check_interrupt: left behind: $left" >&2
  exit 1
fi
[ "$status" -eq 143 ] || { echo "check_interrupt: exit status $status, not 143" >&2; exit 1; }
