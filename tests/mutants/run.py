#!/usr/bin/env python3
"""Takes keel's guards away, one at a time, and looks whether the tests notice.

Each table of the .toml files beside this script is one deliberate removal: a flush, a hash check, a
latch, a lock, a bound, an order rule. It is applied to a copy of the sources, built, and the test
cases it names are run: they must fail. A mutant that no test can see, because what remains does the
same, says so with its reason (`equivalent`) and is not built.

  [flush-before-acknowledging]
  why = "a checkpoint is stable once the flush that follows it has ended"
  file = "cil/log/write_queue.cc"
  find = "..."            # stands exactly once in the file
  replace = "..."
  test = "cil"            # the layer whose tests run, or "cil_tools"
  cases = ["the name of a test case", ...]   # any one of them fails: caught
  count = 4               # optional: so often with other seeds, for what only some seeds reach
  tsan = true             # optional: built with ThreadSanitizer
  asan = true             # optional: built with AddressSanitizer and UBSan
  sim = true              # optional: built for the simulator, whose seeds order atomic operations

With test = "fuzz" the cases are fuzzers (log_image, ...): a corpus that stops passing catches it.

First the cases of the mutants to be judged are run on the sources as they are: one that is red
there would catch anything, so it ends the run.

A case that is skipped (tests/support/skip_case.h) has judged nothing: what only such cases are to
catch is neither caught nor alive, is named (`missing=`) and is tried by every run.

A mutant whose cases hang is caught if they hang again with five times as long, in which they end
without it: else it was the machine, and what the longer run says counts.

Results are kept in the work directory, so that a run that was interrupted goes on (--fresh: the
chosen ones anew). One is of all that it depends on: the mutant, the layer and those below it, the
layer's tests and what all tests share; whatever of that changes, the mutant is tried again.
`tried=` says how many were, `cached=` how many results still stood.
Exit code: 0 all caught; 1 one survived or no longer applies, or a case is red without any mutant;
2 wrong use.
"""
import argparse
import functools
import hashlib
import json
import os
import pathlib
import re
import shutil
import sys
import time
import tomllib

HERE = pathlib.Path(__file__).resolve().parent
sys.dont_write_bytecode = True
sys.path.insert(0, str(HERE.parent / "support"))
import runner  # noqa: E402

ROOT = runner.ROOT
LAYERS = ["base", "vmap", "alloc", "cil"]  # each knows those before it
COPIED = ["CMakeLists.txt", "CMakePresets.json", "base", "vmap", "alloc", "cil", "tests",
          "third_party"]
TEST_SECONDS = 60  # what takes longer hangs, if it does so again
SURE_SECONDS = 5 * TEST_SECONDS
ALL_SKIPPED = 77  # tests/support/skip_case.h
SKIPPED = re.compile(r"\bskipped: ")
BUILDS = ("tsan", "asan", "sim")  # presets
ALLOWED = {"why", "file", "find", "replace", "test", "cases", "count", *BUILDS, "equivalent"}
BASELINE = "(baseline)"  # its key among the results
HANGS = "hangs twice"    # what is known of a mutant that is caught by that


def load():
    mutants = {}
    for path in sorted(HERE.glob("*.toml")):
        for name, mutant in tomllib.loads(path.read_text()).items():
            if name in mutants:
                sys.exit(f"{path.name}: {name} is there twice")
            if unknown := set(mutant) - ALLOWED:
                sys.exit(f"{path.name}: {name}: unknown {', '.join(sorted(unknown))}")
            if sum(mutant.get(build, False) for build in BUILDS) > 1:
                sys.exit(f"{path.name}: {name}: one of {', '.join(BUILDS)}")
            mutants[name] = {"name": name, "layer": path.stem} | mutant
    return mutants


def matching(mutants, text):
    """The names that it chooses."""
    return {text} & set(mutants) or {
        m["name"] for m in mutants.values() if text in m["name"] or text in m["file"]}


def stale(mutant):
    """Says why the mutant can't be applied to today's sources; None if it can."""
    file = ROOT / mutant["file"]
    if not file.exists():
        return f"{mutant['file']} is gone"
    times = file.read_text().count(mutant["find"])
    if times != 1:
        return f"its text stands {times} times in {mutant['file']}"
    if "equivalent" in mutant:
        return None
    if mutant["test"] == "fuzz":
        gone = [c for c in mutant["cases"] if not (ROOT / f"tests/fuzz/{c}_fuzz.cc").exists()]
        return f"no fuzzer {gone[0]}" if gone else None
    tests = "".join(p.read_text() for p in sorted((ROOT / "tests" / mutant["test"]).glob("*.cc")))
    joined = re.sub(r'"\s*\n\s*"', "", tests)
    for case in mutant["cases"]:
        if f'"{case}"' not in joined:
            return f'no test case "{case}" in tests/{mutant["test"]}'
    return None


class Tree:
    """A copy of the sources with build trees of its own, in which one mutant lives at a time."""

    def __init__(self, work):
        self.source = work / "source"
        self.built = set()
        self.children = runner.Children(patience_seconds=1)

    def sync(self):
        self.source.mkdir(parents=True, exist_ok=True)
        wanted = set()
        for name in COPIED:
            origin = ROOT / name
            files = [p for p in origin.rglob("*") if p.is_file()] if origin.is_dir() else [origin]
            for file in files:
                relative = file.relative_to(ROOT)
                target = self.source / relative
                wanted.add(relative)
                # What is the same keeps its time, so that little is built again.
                if not target.exists() or target.read_bytes() != file.read_bytes():
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy(file, target)
        for file in list(self.source.rglob("*")):
            relative = file.relative_to(self.source)
            if file.is_file() and relative.parts[0] in COPIED and relative not in wanted:
                file.unlink()

    def write(self, mutant, text):
        (self.source / mutant["file"]).write_text(text)

    def build(self, preset, layer, cases):
        if preset not in self.built:
            made = self.children.run(["cmake", "--preset", preset, "-DKEEL_BUILD_BENCH=OFF"],
                                     cwd=self.source)
            if made.returncode != 0:
                sys.exit(f"{made.stdout}\nmutants: cmake --preset {preset} failed")
            self.built.add(preset)
        targets = [f"keel_{layer}_tests"]
        if layer == "fuzz":
            targets = [f"keel_fuzz_{case}" for case in cases]
        command = ["cmake", "--build", "--preset", preset, "--target", *targets]
        return self.children.run(runner.with_room(preset, command), cwd=self.source)

    def run(self, preset, layer, cases, seed, seconds=TEST_SECONDS):
        """Gives (green, red, hang, skipped or no case; the output).

        Skipped: all of them, or some and the others are green."""
        tests = self.source / ".build" / preset / "tests"
        if layer == "fuzz":
            for case in cases:
                corpus = self.source / "tests" / "fuzz" / "corpus" / case
                found = self.run_program(preset, [tests / "fuzz" / f"keel_fuzz_{case}", corpus],
                                         seed, seconds)
                if found[0] != "green":
                    return found
            return "green", ""
        wanted = ",".join(case.replace("\\", "\\\\").replace(",", "\\,") for case in cases)
        program = tests / f"keel_{layer}_tests"
        if not program.exists():
            program = tests / layer / program.name  # a folder with a CMakeLists.txt of its own
        result, text = self.run_program(
            preset, [program, f"--test-case={wanted}"], seed, seconds)
        count = re.search(r"test cases:\s*(\d+) \|", text)
        if result in ("green", "skipped") and count and int(count[1]) < len(cases):
            return "no case", text
        if result == "green" and SKIPPED.search(text):
            return "skipped", text
        return result, text

    def run_program(self, preset, command, seed, seconds):
        environment = os.environ | runner.environment_of(preset)
        if seed:
            environment["KEEL_TEST_SEED"] = str(seed)
        ended = self.children.run(runner.with_room(preset, [str(word) for word in command]),
                                  timeout=seconds, env=environment)
        if ended.returncode is None:
            return "hang", ""
        # Where libFuzzer is, it ends with this number if it finds something.
        if ended.returncode == ALL_SKIPPED and SKIPPED.search(ended.stdout):
            return "skipped", ended.stdout
        return ("red" if ended.returncode != 0 else "green"), ended.stdout


def preset_of(mutant):
    return next((build for build in BUILDS if mutant.get(build)), "dev")


def ends_without(tree, mutant, original, turn, known):
    """Whether its cases end in time on the sources as they are, under the longer limit."""
    preset = preset_of(mutant)
    if turn == 0 and all("/".join((preset, mutant["test"], case)) in known
                         for case in mutant["cases"]):
        return True
    tree.write(mutant, original)
    built = tree.build(preset, mutant["test"], mutant["cases"])
    return built.returncode == 0 and tree.run(
        preset, mutant["test"], mutant["cases"], turn, SURE_SECONDS)[0] == "green"


def judge(tree, mutant, original, known):
    """Returns (verdict, detail). Verdicts: caught, survived, skipped, broken (does not build, or
    its cases hang without it too). `known`: the cases that are known to end in time."""
    preset = preset_of(mutant)
    tree.write(mutant, original.replace(mutant["find"], mutant["replace"]))
    try:
        built = tree.build(preset, mutant["test"], mutant["cases"])
        if built.returncode != 0:
            return "broken", built.stdout[-2000:]
        for turn in range(mutant.get("count", 1)):
            result, output = tree.run(preset, mutant["test"], mutant["cases"], turn)
            if result == "hang":
                result, output = tree.run(preset, mutant["test"], mutant["cases"], turn,
                                          SURE_SECONDS)
                if result == "hang":
                    return (("caught", HANGS) if ends_without(tree, mutant, original, turn, known)
                            else ("broken", "its cases hang without it too"))
            if result == "no case":
                return "broken", output[-2000:]
            if result == "red":
                return "caught", result
            if result == "skipped":
                return "skipped", ""
        return "survived", ""
    finally:
        tree.write(mutant, original)


def build_all(tree, chosen):
    """Builds what the mutants' tests need, so that each of them costs what it changes."""
    wanted = {}
    for m in chosen:
        if "equivalent" not in m:
            wanted.setdefault((preset_of(m), m["test"]), set()).update(m["cases"])
    for (preset, layer), cases in sorted(wanted.items()):
        built = tree.build(preset, layer, sorted(cases))
        if built.returncode != 0:
            print(built.stdout)
            return 1
    return 0


def check_baseline(tree, todo, results, keep):
    """Runs what is to catch the mutants without any. Returns the cases that are not green, named.

    What was green is remembered with the sources that it was green of."""
    sources = sources_signature()
    if results.get(BASELINE, {}).get("of") != sources:
        results[BASELINE] = {"of": sources, "green": [], "in_time": []}
    in_time = results[BASELINE].setdefault("in_time", [])
    green = set(results[BASELINE]["green"])
    wanted = {}
    for mutant in todo:
        group = (preset_of(mutant), mutant["test"])
        cases = (c for c in mutant["cases"] if "/".join((*group, c)) not in green)
        wanted.setdefault(group, {}).update(dict.fromkeys(cases))
    bad = []
    for (preset, layer), cases in wanted.items():
        if not cases:
            continue
        print(f"without a mutant: {len(cases)} cases of {layer}, {preset}", flush=True)
        built = tree.build(preset, layer, cases)
        if built.returncode != 0:
            return [f"{preset}: the sources do not build:\n{built.stdout[-2000:]}"]
        started = time.monotonic()
        result, _ = tree.run(preset, layer, list(cases), 0, TEST_SECONDS + 5 * len(cases))
        quick = time.monotonic() - started < SURE_SECONDS
        for case in cases:
            # Together first, which is quick; which of them it is shows one by one.
            alone = result if result == "green" else tree.run(preset, layer, [case], 0,
                                                              SURE_SECONDS)[0]
            if alone == "skipped":
                print(f"skipped here: {preset}, {layer}: {case}", flush=True)
            elif alone == "green":
                results[BASELINE]["green"].append("/".join((preset, layer, case)))
                if quick or result != "green":
                    in_time.append("/".join((preset, layer, case)))
            else:
                bad.append(f"{preset}, {layer}: {alone}: {case}")
        keep()
    return bad


def main():
    parser = argparse.ArgumentParser(description="Removes keel's guards and expects red tests.")
    parser.add_argument("--only", metavar="TEXT", action="append", default=[],
                        help="the mutant of that name, else those whose name or file contains it; "
                             "may be repeated")
    parser.add_argument("--list", action="store_true", help="say what there is and stop")
    parser.add_argument("--check", action="store_true", help="only see that every mutant applies")
    parser.add_argument("--build", action="store_true", help="only build what the tests need")
    parser.add_argument("--first", type=int, default=0, metavar="K",
                        help="begin with the K-th, in an order that mixes the layers")
    parser.add_argument("--count", type=int, metavar="N", help="so many")
    parser.add_argument("--fresh", action="store_true", help="forget earlier results")
    parser.add_argument("--work", type=pathlib.Path, default=ROOT / ".build" / "mutants")
    options = parser.parse_args()

    mutants = load()
    wanted = {text: matching(mutants, text) for text in options.only}
    for text, found in wanted.items():
        if not found:
            parser.error(f"no mutant matches {text}")
    chosen = [m for m in mutants.values()
              if not wanted or any(m["name"] in found for found in wanted.values())]
    of = sum("equivalent" not in m for m in chosen)
    if options.first or options.count:
        # Those that are built, which is what is counted.
        chosen = [m for m in chosen if "equivalent" not in m]
        chosen.sort(key=lambda m: hashlib.sha256(m["name"].encode()).digest())
        chosen = chosen[options.first:][:options.count]
    if options.list:
        for mutant in chosen:
            mark = "  (equivalent)" if "equivalent" in mutant else ""
            print(f"{mutant['name']:44} {mutant['file']}{mark}")
        return 0
    outdated = [(m["name"], reason) for m in chosen if (reason := stale(m))]
    for name, reason in outdated:
        print(f"{name}: {reason}")
    if options.check or outdated:
        print(f"{len(chosen)} mutants, {len(outdated)} out of date")
        return 1 if outdated else 0

    runner.hold(options.work)
    runner.stop_on_signals()
    kept = options.work / "results.json"
    results = json.loads(kept.read_text()) if kept.exists() else {}
    if options.fresh:
        for mutant in chosen:
            results.pop(mutant["name"], None)
    tree = Tree(options.work)
    tree.sync()
    if options.build:
        return build_all(tree, chosen)
    started = time.monotonic()
    # A hang that nothing confirmed is judged again.
    todo = [m for m in chosen if "equivalent" not in m and
            (results.get(m["name"], {}).get("of") != signature(m) or
             results[m["name"]]["detail"] == "hang")]
    if red := check_baseline(tree, todo, results, lambda: runner.write_json(kept, results)):
        print("red without any mutant, so nothing is judged:")
        for line in red:
            print(f"  {line}")
        return 1
    skipped = []
    for number, mutant in enumerate(todo, 1):
        verdict, detail = judge(tree, mutant, (tree.source / mutant["file"]).read_text(),
                                set(results[BASELINE]["in_time"]))
        if verdict == "skipped":
            skipped.append(mutant["name"])
            results.pop(mutant["name"], None)
        else:
            results[mutant["name"]] = {"verdict": verdict, "detail": detail, "of": signature(mutant)}
        runner.write_json(kept, results)
        left = (time.monotonic() - started) / number * (len(todo) - number)
        print(f"[{number}/{len(todo)}, {left / 60:.0f} min left] {verdict:8} {mutant['name']}"
              f"{' (' + detail + ')' if verdict == 'caught' else ''}", flush=True)
        if verdict == "broken":
            print(detail)

    equivalent = sum("equivalent" in m for m in chosen)
    bad = [m["name"] for m in chosen if "equivalent" not in m and m["name"] not in skipped and
           results[m["name"]]["verdict"] != "caught"]
    missing = f' missing="cases that run here, of {", ".join(skipped)}"' if skipped else ""
    print(f"property=mutants tried={len(todo) - len(skipped)} "
          f"cached={len(chosen) - equivalent - len(todo)} failures={len(bad)} "
          f"equivalent={equivalent} of={of} seconds={time.monotonic() - started:.0f}{missing}")
    for name in bad:
        print(f"  {results[name]['verdict']}: {name}: {mutants[name]['why']}\n"
              f"    again: make mutants ARGS=\"--only {name} --fresh\"")
    return 1 if bad else 0


def hash_of(names, but=()):
    """Of all files below these, by name and content; those that end as in `but` aside."""
    digest = hashlib.sha256()
    for name in names:
        top = ROOT / name
        for path in sorted(top.rglob("*")) if top.is_dir() else [top]:
            if path.is_file() and path.suffix not in but:
                digest.update(str(path.relative_to(ROOT)).encode() + b"\0")
                digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


NOT_BUILT = (".md", ".toml", ".py", ".pyc")


@functools.cache
def signature_of_layer(layer):
    """What the verdicts of a layer's tests depend on, but for the mutant."""
    below = LAYERS[:LAYERS.index(layer) + 1] if layer in LAYERS else LAYERS
    built = [name for name in COPIED if name not in LAYERS and name != "tests"]
    return hash_of([*below, *built, "tests/CMakeLists.txt", "tests/support", f"tests/{layer}"],
                   NOT_BUILT)


def signature(mutant):
    """What a result is of. Read once: sources that change while mutants are judged are not those
    that were copied."""
    of = json.dumps(mutant, sort_keys=True) + signature_of_layer(mutant.get("test", ""))
    return hashlib.sha256(of.encode()).hexdigest()[:16]


def sources_signature():
    """What the baseline is of: all that is built, and the corpora."""
    return hash_of(COPIED, NOT_BUILT)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("\nmutants: interrupted; the next run goes on from here", file=sys.stderr)
        sys.exit(130)
