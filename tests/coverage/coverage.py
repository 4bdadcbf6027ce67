#!/usr/bin/env python3
"""Line and branch coverage of the layers, from the tests of a build with `--preset coverage`.

  coverage.py run      runs the tests and keeps what they covered, in .build/coverage/profile
  coverage.py report   prints the table, and every branch that was never taken one of its ways;
                       of the files alone that begin as one of the words after it, as cil/log/

A branch counts twice, once for each way. Not counted: the failing way of KEEL_CHECK, KEEL_ASSERT and
KEEL_AUDIT, which ends the process. Lines have the same goal: a function without a branch that nobody
calls shows in them alone. What no test can reach is in justified.toml beside this script, with its
reason; it counts as covered. Exit code: 0 all files reach their goal, for both.
"""
import argparse
import collections
import functools
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tomllib

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
BUILD = ROOT / ".build" / "coverage"
PROFILE = BUILD / "profile"
LAYERS = ["base", "vmap", "alloc", "cil"]
NOT_OURS = re.compile(r"^(cil/tools|alloc/measure|alloc/preload)/")
# What reads a log that may be damaged or hostile: every branch.
ALL_OF_IT = re.compile(
    r"^cil/(recovery|recovered_items|log/(chain_reader|checkpoint_reader|checkpoint_items|geometry|"
    r"log_scan|read_ahead|read_buffer|stable_evidence|witness_search|log_file))\.(cc|h)$")
GOAL_ALL, GOAL_USUAL = 100.0, 95.0
ENDS_PROCESS = re.compile(r"\bKEEL_(CHECK|ASSERT|AUDIT|CHECK_SYSCALL)\s*\(")

Branch = collections.namedtuple("Branch", "file line column true false")


def tool(name):
    for candidate in (name, f"{name}-14"):
        if shutil.which(candidate):
            return candidate
    sys.exit(f"coverage: {name} is missing (third_party/setup.sh check)")


def run(arguments):
    shutil.rmtree(PROFILE, ignore_errors=True)
    PROFILE.mkdir(parents=True)
    # %4m: up to four files a program, into which its runs are merged.
    environment = os.environ | {"LLVM_PROFILE_FILE": f"{PROFILE}/%4m.profraw"}
    command = ["ctest", "--preset", "coverage", "--parallel", str(os.cpu_count()),
               "--tests-regex", "^(base|vmap|alloc|cil|cil_tools):",
               # Valgrind cannot read what clang says of its code.
               "--exclude-regex", "Valgrind", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment).returncode


def exported():
    raw = sorted(map(str, PROFILE.glob("*.profraw")))
    if not raw:
        sys.exit("coverage: nothing was run yet: coverage.py run")
    merged = PROFILE / "all.profdata"
    subprocess.run([tool("llvm-profdata"), "merge", "--sparse", "-o", merged, *raw], check=True)
    binaries = sorted(map(str, (BUILD / "tests").glob("keel_*_tests")))
    binaries += sorted(map(str, (BUILD / "tests" / "cil_tools").glob("keel_*_tests")))
    objects = [word for binary in binaries[1:] for word in ("--object", binary)]
    command = [tool("llvm-cov"), "export", "--format=text", f"--instr-profile={merged}",
               binaries[0], *objects]
    found = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    return json.loads(found.stdout)["data"][0]


def name_of(path):
    path = pathlib.Path(os.path.normpath(path))
    if not path.is_relative_to(ROOT):
        return None
    name = str(path.relative_to(ROOT))
    return name if name.split("/")[0] in LAYERS and not NOT_OURS.match(name) else None


def statement_at(lines, number):
    """The text from a line on, with what precedes it of the same statement."""
    first = number - 1
    while first > 0 and not re.search(r"[;{}]\s*(//.*)?$", lines[first - 1]):
        first -= 1
    return " ".join(line.strip() for line in lines[first:number])


def branches_of(data):
    """The ways of each branch, summed over the instances of templates and inline functions."""
    ways = {}
    for function in data["functions"]:
        files = function["filenames"]
        for entry in function["branches"]:
            line, column, _, _, true, false, file, _, kind = entry[:9]
            name = name_of(files[file])
            if name is None or kind not in (4, 5):
                continue
            key = (name, line, column)
            before = ways.get(key, (0, 0))
            ways[key] = (before[0] + true, before[1] + false)
    return [Branch(*key, *counts) for key, counts in sorted(ways.items())]


def line_counts(segments):
    """How often each line with code ran, of one file's segments: as llvm-cov counts them."""
    by_line = collections.defaultdict(list)
    for line, column, count, has_count, is_entry, is_gap in segments:
        by_line[line].append((count, has_count, is_entry, is_gap))
    counts, before = {}, None  # the segment that reaches into the line
    for line in range(min(by_line, default=0), max(by_line, default=-1) + 1):
        here = by_line.get(line, [])
        begun = [count for count, has_count, is_entry, is_gap in here
                 if has_count and is_entry and not is_gap]
        skipped = bool(here) and not here[0][1] and here[0][2]
        if not skipped and (begun or (before and before[1])):
            counts[line] = max([before[0] if before else 0, *begun])
        before = here[-1] if here else before
    return counts


class Justified:
    """The entries of justified.toml, each of exactly one line of the sources."""

    def __init__(self, tables, root=ROOT):
        self.wrong, self.used = [], set()
        self.entries = {}
        for kind, entries in tables.items():
            for entry in entries:
                extra = {"lines"} if kind == "line" else set()
                if kind not in ("branch", "line") or set(entry) - extra != {"file", "text", "reason"}:
                    sys.exit("justified.toml: [[branch]] or [[line]] with file, text and reason, a line "
                             f"also with lines: {entry}")
                file = root / entry["file"]
                lines = file.read_text().splitlines() if file.exists() else []
                at = [i for i, line in enumerate(lines, 1) if entry["text"] in line]
                name = f"[[{kind}]] {entry['file']}: {entry['text']}"
                if len(at) != 1:
                    self.wrong.append(f"{name} stands {len(at)} times there, not once")
                    continue
                for line in range(at[0], at[0] + entry.get("lines", 1)):
                    self.entries[kind, entry["file"], line] = name

    def excuses(self, kind, file, line):
        if (kind, file, line) in self.entries:
            self.used.add(self.entries[kind, file, line])
            return True
        return False

    def unused(self):
        return sorted({(key[1], name) for key, name in self.entries.items()
                       if name not in self.used})


def load_justified():
    path = HERE / "justified.toml"
    return Justified(tomllib.loads(path.read_text()) if path.exists() else {})


def judge(branches, counts, justified, read):
    """What is covered of each file, [counted, covered, excused] of ways and lines, and what is not."""
    ways = collections.defaultdict(lambda: [0, 0, 0])
    lines = collections.defaultdict(lambda: [0, 0, 0])
    missed = collections.defaultdict(list)
    for file, of_lines in counts.items():
        for line, count in sorted(of_lines.items()):
            excused = count == 0 and justified.excuses("line", file, line)
            lines[file][0] += 1
            lines[file][1] += count != 0
            lines[file][2] += excused
            if count == 0 and not excused:
                missed[file].append((line, f"{line} never ran: {read(file)[line - 1].strip()}"))
    for branch in branches:
        text = read(branch.file)
        if ENDS_PROCESS.search(statement_at(text, branch.line)):
            continue
        for way, taken in (("true", branch.true), ("false", branch.false)):
            excused = not taken and justified.excuses("branch", branch.file, branch.line)
            ways[branch.file][0] += 1
            ways[branch.file][1] += taken != 0
            ways[branch.file][2] += excused
            if not taken and not excused:
                missed[branch.file].append((branch.line, f"{branch.line}:{branch.column} never {way}: "
                                                         f"{text[branch.line - 1].strip()}"))
    return ways, lines, missed


def share(counts):
    counted, covered, excused = counts
    return 100.0 * (covered + excused) / counted if counted else 100.0


def report(listed, prefixes):
    data = exported()
    justified = load_justified()
    read = functools.cache(lambda file: (ROOT / file).read_text().splitlines())
    counts = {name: line_counts(file["segments"]) for file in data["files"]
              if (name := name_of(file["filename"]))}
    ways, lines, missed = judge(branches_of(data), counts, justified, read)
    short = []
    total = [0] * 6
    print(f"{'file':46} {'lines':>13} {'branch ways':>13} {'justified':>9} {'goal':>6}")
    for name in sorted(name for name in counts if name.startswith(prefixes)):
        goal = GOAL_ALL if ALL_OF_IT.match(name) else GOAL_USUAL
        mark = "" if min(share(lines[name]), share(ways[name])) >= goal else "  short"
        if mark:
            short.append(name)
        for i, value in enumerate((*lines[name], *ways[name])):
            total[i] += value
        print(f"{name:46} {share(lines[name]):6.1f}% {lines[name][0]:>5} {share(ways[name]):6.1f}% "
              f"{ways[name][0]:>5} {lines[name][2] + ways[name][2]:>9} {goal:>5.0f}%{mark}")
    print(f"all: lines {share((*total[:2], 0)):.1f} % of {total[0]} and {total[2]} justified, "
          f"branch ways {share((*total[3:5], 0)):.1f} % of {total[3]} and {total[5]} justified")
    for name in sorted(missed):
        if name in short or (listed and name.startswith(prefixes)):
            print(f"\n{name}")
            for _, text in sorted(missed[name]):
                print(f"  {text}")
    for file, name in justified.unused():
        if file.startswith(prefixes):
            print(f"justified.toml: not needed this time: {name}")
    for text in justified.wrong:
        print(f"justified.toml: {text}")
    print(f"\nproperty=coverage tried={total[0] + total[3]} "
          f"failures={len(short) + len(justified.wrong)} files short of their goal, or wrong excuses")
    return 1 if short or justified.wrong else 0


def main():
    parser = argparse.ArgumentParser(description="Line and branch coverage of the layers.")
    parser.add_argument("what", choices=["run", "report"])
    parser.add_argument("--all", action="store_true", help="list what is missed in every file")
    options, rest = parser.parse_known_args()
    if options.what == "run":
        return run(rest)
    if any(word.startswith("-") for word in rest):
        parser.error(f"unknown: {' '.join(rest)}")
    return report(options.all, tuple(rest) or ("",))


if __name__ == "__main__":
    sys.exit(main())
