#!/usr/bin/env python3
"""Line and branch coverage of the layers, from the tests of a build with `--preset coverage`.

  coverage.py run      runs the tests and keeps what they covered, in .build/coverage/profile
  coverage.py report   prints the table, and every branch that was never taken one of its ways;
                       of the files alone that begin as one of the words after it, as cil/log/

A branch counts twice, once for each way. Not counted: the failing way of KEEL_CHECK, KEEL_ASSERT and
KEEL_AUDIT, which ends the process. What no test can reach is in justified.toml beside this script,
with its reason; it counts as covered and is listed. Exit code: 0 all files reach their goal.
"""
import argparse
import collections
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


def load_justified():
    path = HERE / "justified.toml"
    entries = tomllib.loads(path.read_text()).get("branch", []) if path.exists() else []
    for entry in entries:
        if set(entry) != {"file", "text", "reason"}:
            sys.exit(f"{path.name}: an entry has file, text and reason: {entry}")
    return entries


def report(listed, prefixes):
    data = exported()
    justified = load_justified()
    used = [0] * len(justified)
    sources = {}
    counts = collections.defaultdict(lambda: [0, 0, 0])  # ways, covered, justified
    missed = collections.defaultdict(list)
    for branch in branches_of(data):
        if branch.file not in sources:
            sources[branch.file] = (ROOT / branch.file).read_text().splitlines()
        lines = sources[branch.file]
        if ENDS_PROCESS.search(statement_at(lines, branch.line)):
            continue
        text = lines[branch.line - 1]
        count = counts[branch.file]
        for way, taken in (("true", branch.true), ("false", branch.false)):
            count[0] += 1
            if taken:
                count[1] += 1
                continue
            reason = next((i for i, entry in enumerate(justified)
                           if entry["file"] == branch.file and entry["text"] in text), None)
            if reason is not None:
                used[reason] += 1
                count[2] += 1
            else:
                missed[branch.file].append(f"{branch.line}:{branch.column} never {way}: "
                                           f"{text.strip()}")
    lines_of = {name_of(file["filename"]): file["summary"]["lines"] for file in data["files"]}
    short = []
    total = [0, 0, 0, 0, 0]
    print(f"{'file':46} {'lines':>13} {'branch ways':>13} {'justified':>9} {'goal':>6}")
    for name in sorted(name for name in lines_of if name and name.startswith(prefixes)):
        ways, covered, excused = counts[name]
        line = lines_of[name]
        share = 100.0 * (covered + excused) / ways if ways else 100.0
        goal = GOAL_ALL if ALL_OF_IT.match(name) else GOAL_USUAL
        mark = "" if share >= goal else "  short"
        if mark:
            short.append(name)
        for i, value in enumerate((line["count"], line["covered"], ways, covered, excused)):
            total[i] += value
        print(f"{name:46} {line['percent']:6.1f}% {line['covered']:>5} {share:6.1f}% {ways:>5} "
              f"{excused:>9} {goal:>5.0f}%{mark}")
    print(f"all: lines {100.0 * total[1] / total[0]:.1f} %, branch ways "
          f"{100.0 * total[3] / total[2]:.1f} % of {total[2]} and {total[4]} justified")
    for name in sorted(missed):
        if name in short or (listed and name.startswith(prefixes)):
            print(f"\n{name}")
            for text in missed[name]:
                print(f"  {text}")
    for entry, times in zip(justified, used):
        if times == 0 and entry["file"].startswith(prefixes):
            print(f"justified.toml: not needed this time: {entry['file']}: {entry['text']}")
    print(f"\nproperty=coverage tried={total[2]} failures={len(short)} files short of their goal")
    return 1 if short else 0


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
