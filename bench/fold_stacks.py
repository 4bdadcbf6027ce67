#!/usr/bin/env python3
"""Turns `perf script -F comm,tid,ip,sym,dso` on stdin into folded stacks on stdout.

One line a stack: `thread;outermost;...;innermost COUNT`. Kernel functions get `_[k]` behind the
name, so that those who read the stacks can tell the two sides apart."""

import collections
import re
import sys

# "    7f12ab34cd56 keel::Journal::begin(unsigned long) (/path/binary)"
FRAME = re.compile(r"^\s+[0-9a-f]+\s+(?P<symbol>.*?)\s+\((?P<object>[^()]*(?:\([^()]*\))?)\)$")


def is_kernel(module):
    """A module is named [kernel.kallsyms], [xfs], ...; so is [vdso], which is user code."""
    user = ("[vdso", "[unknown", "[heap", "[stack")
    return module.startswith("[") and not module.startswith(user)


def without_arguments(symbol):
    """keel::f<int>(char*) const -> keel::f<int>; leaves (anonymous namespace) alone."""
    symbol = symbol.replace("(anonymous namespace)", "{anonymous}").replace("operator()", "{call}")
    depth, kept = 0, []
    for letter in symbol:
        depth += letter == "("
        if depth == 0:
            kept.append(letter)
        depth -= letter == ")"
    return re.sub(r" (const)?(\[clone.*\])?$", "", "".join(kept)).strip()


def frame_name(line):
    match = FRAME.match(line)
    if match is None:
        return None
    symbol, module = match["symbol"], match["object"]
    if symbol == "[unknown]":
        symbol = "[" + module.rsplit("/", 1)[-1].strip("[]") + "]"
    name = without_arguments(symbol.split("+0x")[0]).replace(";", ":")
    return name + "_[k]" if is_kernel(module) else name


def fold(lines):
    """Counts of stacks; a sample is a line at column 0, then indented frames, innermost first."""
    counts = collections.Counter()
    thread, frames = None, []

    def finish():
        if thread is not None and frames:
            counts[";".join([thread] + frames[::-1])] += 1

    for line in lines:
        line = line.rstrip("\n")
        if line and not line[0].isspace():
            finish()
            thread, frames = re.sub(r"\s+\d+\s*$", "", line).strip().replace(";", ":"), []
        elif line.strip():
            name = frame_name(line)
            if name:
                frames.append(name)
    finish()
    return counts


def main():
    counts = fold(sys.stdin)
    for stack in sorted(counts):
        print(stack, counts[stack])


if __name__ == "__main__":
    main()
