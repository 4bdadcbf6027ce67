#!/usr/bin/env bash
# Makes one object file of Debian's libjemalloc_pic.a in which every global symbol is keel_je_*.
#
#   prefix_jemalloc.sh ARCHIVE OUTPUT [LD [OBJCOPY [NM [AR]]]]
#
# Debian builds jemalloc without a symbol prefix: linking it as it comes would make it the malloc of
# every program that uses keel. So the members are linked into one relocatable object, without the
# C++ operators; what the header beside this file declares is renamed, and all else is made local.
# Beside another jemalloc, prefixed or not, static or shared, nothing clashes. Fails if a symbol that
# the header needs is missing, or one is left that is neither local nor keel_je_*.
set -euo pipefail

archive=$(realpath "$1")
output=$2
ld=${3:-ld}
objcopy=${4:-objcopy}
nm=${5:-nm}
ar=${6:-ar}

# malloc_conf and its like are variables that a program may define; see jemalloc(3), TUNING.
public=(
  malloc free calloc realloc posix_memalign aligned_alloc memalign valloc malloc_usable_size
  mallocx rallocx xallocx sallocx dallocx sdallocx nallocx
  mallctl mallctlnametomib mallctlbymib
  malloc_stats_print malloc_message malloc_conf malloc_conf_2_conf_harder
)

fail() {
  echo "prefix_jemalloc.sh: $*" >&2
  exit 1
}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
(cd "$work" && "$ar" x "$archive" && rm -f jemalloc_cpp*.o)
"$ld" -r -o "$work/joined" "$work"/*.o

printf '%s\n' "${public[@]}" >"$work/keep"
printf '%s\n' "${public[@]}" | sed 's/.*/& keel_je_&/' >"$work/rename"
# Two passes: which of the two names the lists mean in one pass is not documented.
"$objcopy" --strip-debug --keep-global-symbols="$work/keep" "$work/joined" "$work/local"
"$objcopy" --redefine-syms="$work/rename" "$work/local" "$work/renamed"

"$nm" -g --defined-only "$work/renamed" | awk '{print $NF}' | sort >"$work/have"
sed 's/.* //' "$work/rename" | sort >"$work/want"
diff "$work/want" "$work/have" >&2 || fail "$archive has other symbols than expected, see above"
# A call from inside jemalloc to an allocator that is not its own would be another program's.
if "$nm" -u "$work/renamed" | awk '{print $NF}' |
  grep -xE 'malloc|free|calloc|realloc|memalign|aligned_alloc|posix_memalign|_Zn.*|_Zd.*'; then
  fail "$archive calls an allocator that is not its own, see above"
fi
mv "$work/renamed" "$output"
