#!/usr/bin/env python3
"""Reads folded stacks (fold_stacks.py) on stdin and prints where the time went.

Each sample belongs to the first kind below that any of its frames matches; so a page fault in
memcpy is kernel and not copying, and a system call made by a lock is locks. Copying counts clearing
as well. Then come the functions with most time of their own.

--within PATTERN counts only stacks with a frame that matches, --without PATTERN only those without
one. --json prints the shares of locks (spin locks among them), of the kernel, and of both together,
instead of the tables, and none of them if there are no samples; with --share PATTERN that of the
stacks with a frame that matches, too.
"""

import argparse
import collections
import json
import re
import sys

# In order of precedence. User-side names; the kernel's functions end in _[k].
KINDS = [
    ("locks", r"futex|Mutex|TurnLock|CondVar|pthread_(mutex|cond)"
              r"|__lll_lock|lock_rank|[Ss]pin_?[Ll]ock"),
    ("kernel: write and flush", r"(pwritev?2?|write|fdatasync|fsync|io_uring)\w*_\[k\]$"),
    ("kernel: page faults", r"(page_fault|do_user_addr_fault|handle_mm_fault)\w*_\[k\]$"),
    ("kernel: other", r"_\[k\]$"),
    ("hashing", r"XXH|^keel::(Hasher|hash64|hash_update)"),
    ("copying", r"mem(cpy|move|set)|ItemFormatter::copy|PackedStream::take"),
    ("allocating", r"kvmalloc|kvfree|kvsize|PageAllocator|^keel::(Pool|Window)::|malloc|calloc"
                   r"|operator (new|delete)|_int_free|cfree|^free$|metadata_(allocate|free)"
                   r"|allocate_log_vector"),
]
PATTERNS = [(name, re.compile(pattern)) for name, pattern in KINDS]
TOP = 15
LONGEST = 64  # letters of a name that are printed


def kind_of(frames):
    for name, pattern in PATTERNS:
        if any(pattern.search(frame) for frame in frames):
            return name
    return "other"


def read(lines):
    for line in lines:
        stack, _, count = line.rstrip("\n").rpartition(" ")
        yield stack.split(";"), int(count)


def print_table(title, total, rows):
    rows = [(name if len(name) <= LONGEST else name[:LONGEST - 1] + "…", n) for name, n in rows]
    width = max(len(text) for text in [title] + [name for name, _ in rows])
    print(f"{title:<{width}}  samples   share")
    for name, count in rows:
        print(f"{name:<{width}}  {count:7d}  {100 * count / total:5.1f}%")


def print_json(total, kinds, matching):
    if total == 0:
        print(json.dumps({"samples": 0}))
        return
    locks = kinds["locks"] / total
    kernel = sum(count for name, count in kinds.items() if name.startswith("kernel")) / total
    print(json.dumps({"samples": total, "locks": locks, "kernel": kernel,
                      "locks_and_kernel": locks + kernel, "share": matching / total}))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--within", type=re.compile)
    parser.add_argument("--without", type=re.compile)
    parser.add_argument("--share", type=re.compile)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    kinds, own = collections.Counter(), collections.Counter()
    matching = 0

    def has(pattern, frames):
        return any(pattern.search(frame) for frame in frames)

    for frames, count in read(sys.stdin):
        if args.within and not has(args.within, frames):
            continue
        if args.without and has(args.without, frames):
            continue
        if args.share and has(args.share, frames):
            matching += count
        kinds[kind_of(frames[1:])] += count
        own[frames[-1]] += count
    total = sum(kinds.values())
    if args.json:
        print_json(total, kinds, matching)
        return
    if total == 0:
        sys.exit("time_shares: no samples")
    order = [name for name, _ in KINDS] + ["other"]
    print_table("kind", total, [(name, kinds[name]) for name in order])
    print()
    print_table("function (own time)", total, own.most_common(TOP))


if __name__ == "__main__":
    main()
