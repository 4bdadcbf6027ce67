#!/usr/bin/env python3
"""Runs the campaigns behind keel's promises, and prints the goal table: what was tried, what failed.

goals.toml beside this script has one table a campaign: the promise, the command, how much of it is
tried in a slice (`make trust`, about ten minutes) and in the long run (`make nightly`). A campaign is
numbered parts, without end (seeds) or a space that is tried whole (the cases of an enumeration): it
runs in chunks, each of which prints lines

  property=NAME tried=N failures=F seconds=S

(or lost=, partial=, holes=, other= in place of failures=), with whatever else it has to say:

  of=N         how many parts there are
  next=N       the first part that was not tried, where that is not the end of the chunk
  missing="W"  what could not be tried here, and why; skipped="W": nothing could
  cached=N     how many results of an earlier run still hold, and were not tried again

A chunk that exits with an error or hangs counts as one failure at least, and its command is what to
run again. The long run keeps what it has done in the work directory and goes on from there, also after
Ctrl-C: `--fresh` begins anew. Sources may change between runs: the table says how much was tried with
those of today, and chunks that failed with others are tried again. Of a campaign that does not repeat
itself (threads, kernels: `repeats = false`) that says little: a failure that is not met again stays in
the table, and an error, until --mended says that its cause was found. What was skipped is tried by
every run.

Exit code: 0 nothing failed; 1 something did; 2 wrong use; 3 broken off by an error; 130 interrupted.
"""
import argparse
import concurrent.futures
import dataclasses
import hashlib
import json
import math
import os
import pathlib
import re
import shlex
import sys
import threading
import time
import tomllib
import traceback

HERE = pathlib.Path(__file__).resolve().parent
sys.dont_write_bytecode = True
sys.path.insert(0, str(HERE.parent / "support"))
import runner  # noqa: E402

ROOT = runner.ROOT
# What is built of them; a goal's `sources` are files that it reads beside these.
SOURCES = ["CMakeLists.txt", "CMakePresets.json", "base", "vmap", "alloc", "cil", "third_party", "tests"]
BUILT = {".cc", ".h", ".txt", ".json", ".cmake", ".in", ".sh"}
LINE = re.compile(r"^property=\S+ .*$", re.MULTILINE)
QUOTED = re.compile(r'"[^"]*"')
PAIR = re.compile(r"(\w+)=(\d+)\b")
CASES = re.compile(r"test cases: *(\d+) \| *\d+ passed \| *(\d+) failed")
FAILED = {"failures", "lost", "partial", "holes", "other"}
SKIPPED = re.compile(r'\bskipped="([^"]*)"')
MISSING = re.compile(r'\bmissing="([^"]*)"')
MOST_FAILURES_KEPT = 20


@dataclasses.dataclass
class Goal:
    name: str
    row: str  # of the goal table in tests/README.md
    promise: str
    # {first} and {count} are filled in, and {chunk}, the chunk's number; {build}: the preset's tree.
    command: str
    unit: str
    slice: int  # tried in a slice, in its own unit
    long: int = 0  # tried in the long run; 0: all parts
    preset: str = ""
    target: str = ""  # what to build of it
    prepare: str = ""  # what else to run before the first chunk
    chunk: int = 1  # parts a call, in the long run
    slice_chunk: int = 0  # parts a call in a slice; 0: as in the long run
    parts: int = 0  # how many there are, where no `of=` says it
    part: str = ""  # what a part is, where it is not the unit
    environment: dict = dataclasses.field(default_factory=dict)
    # In its place in a slice, for a sample that is spread over the space.
    slice_environment: dict = dataclasses.field(default_factory=dict)
    first: int = 0  # number of the first part
    sources: list = dataclasses.field(default_factory=list)
    repeats: bool = True  # whether a chunk that failed fails again, with the same sources
    figure: str = "tried"  # which of the numbers it prints is counted; "cases": doctest's count
    alone: bool = False  # nothing else may run meanwhile
    chunk_seconds: int = 900  # a chunk that takes longer hangs


@dataclasses.dataclass
class Done:
    next: int = 0  # the first part that has not been tried
    of: int = 0  # how many parts there are, as the command said
    tried: int = 0
    cached: int = 0
    seconds: float = 0.0
    skipped: str = ""
    missing: list = dataclasses.field(default_factory=list)
    # Chunks that failed, and what such a one left untried (without sources): first, count, sources,
    # failures, again, tried (which the next try of it takes the place of).
    open: list = dataclasses.field(default_factory=list)
    # Failures of a campaign that does not repeat itself which another try has not met: failures, again.
    unexplained: list = dataclasses.field(default_factory=list)
    by_sources: dict = dataclasses.field(default_factory=dict)  # what was tried with which sources

    @property
    def failures(self):
        return sum(chunk["failures"] for chunk in self.open + self.unexplained)


@dataclasses.dataclass
class Outcome:
    """What a chunk's output says."""
    tried: int
    cached: int
    failures: int
    next: int | None
    of: int | None
    skipped: str
    missing: list


def read(output, figure):
    lines = LINE.findall(output)
    pairs = [pair for line in lines for pair in PAIR.findall(QUOTED.sub("", line))]
    if figure == "cases":
        counts = CASES.findall(output)
        pairs += [("cases", ran) for ran, _ in counts] + [("failures", bad) for _, bad in counts]
    numbers = {}
    for key, number in pairs:
        numbers.setdefault(key, []).append(int(number))
    said = "\n".join(lines)
    return Outcome(tried=sum(numbers.get(figure, [])), cached=sum(numbers.get("cached", [])),
                   failures=sum(sum(numbers.get(key, [])) for key in FAILED),
                   next=numbers["next"][-1] if "next" in numbers else None,
                   of=numbers["of"][-1] if "of" in numbers else None,
                   skipped=" ".join(SKIPPED.findall(said)), missing=MISSING.findall(said))


def load():
    goals = []
    for name, table in tomllib.loads((HERE / "goals.toml").read_text()).items():
        goals.append(Goal(name=name, **table))
    return goals


def matching(goals, text):
    return ([goal for goal in goals if text in (goal.name, goal.row)] or
            [goal for goal in goals if text in goal.promise])


def hash_files(digest, names, of_them):
    for top in names:
        for path in sorted((ROOT / top).rglob("*")) if (ROOT / top).is_dir() else [ROOT / top]:
            if path.is_file() and of_them(path):
                digest.update(str(path.relative_to(ROOT)).encode() + b"\0")
                digest.update(hashlib.sha256(path.read_bytes()).digest())


def states_of_sources(goals):
    """A hash for each goal over what its figures are of, its command included."""
    built = hashlib.sha256()
    hash_files(built, SOURCES, lambda path: path.suffix in BUILT)
    states = {}
    for goal in goals:
        digest = built.copy()
        hash_files(digest, goal.sources, lambda path: "__pycache__" not in path.parts)
        said = (goal.command, goal.prepare, goal.preset, goal.target, goal.environment,
                goal.slice_environment)
        digest.update(json.dumps(said, sort_keys=True).encode())
        states[goal.name] = digest.hexdigest()[:12]
    return states


class Campaign:
    def __init__(self, options, goals):
        self.options = options
        self.goals = goals
        self.lock = threading.Lock()
        self.children = runner.Children(patience_seconds=3)
        self.stopping = threading.Event()
        self.error = ""
        self.deadline = None
        self.kept = options.work / ("slice.json" if options.slice else "long.json")
        self.sources = states_of_sources(goals)
        # Of all goals, so that what is written is too.
        self.done = {}
        if self.kept.exists():
            known = {field.name for field in dataclasses.fields(Done)}
            for name, record in json.loads(self.kept.read_text()).items():
                self.done[name] = Done(**{key: record[key] for key in known & set(record)})
        for goal in goals:
            done = self.done.setdefault(goal.name, Done())
            if not options.report:
                if options.slice or options.fresh:
                    self.done[goal.name] = Done()
                done.skipped, done.missing = "", []
                if options.mended:
                    self.done[goal.name].unexplained = []

    def sampled(self, goal):
        return bool(self.options.slice and goal.slice_environment)

    def parts(self, goal):
        """How many there are; None: without end, or not known yet."""
        if self.sampled(goal):
            return None
        return goal.parts or self.done[goal.name].of or None

    def wanted(self, goal):
        """In the goal's unit; None where all parts are."""
        return goal.slice if self.options.slice else goal.long or None

    def due(self, goal):
        """A chunk that failed with other sources, or was not tried to its end."""
        for chunk in self.done[goal.name].open:
            if chunk["sources"] != self.sources[goal.name]:
                return chunk
        return None

    def finished(self, goal):
        done = self.done[goal.name]
        failures = sum(c["failures"] for c in done.open if c["sources"] == self.sources[goal.name])
        if done.skipped or failures >= MOST_FAILURES_KEPT:
            return True
        if self.due(goal):
            return False
        return (done.next >= (self.parts(goal) or math.inf) or
                done.tried >= (self.wanted(goal) or math.inf))

    def chunk(self, goal):
        """The next one to try: its first part, how many, and the open one that it is, if it is one."""
        if due := self.due(goal):
            return due["first"], due["count"], due
        done = self.done[goal.name]
        count = goal.slice_chunk if self.options.slice and goal.slice_chunk else goal.chunk
        return done.next, min(count, (self.parts(goal) or math.inf) - done.next), None

    def command(self, goal, text, first, count):
        fields = {"first": goal.first + first, "count": count, "chunk": first // count,
                  "build": ROOT / ".build" / goal.preset}
        environment = goal.slice_environment if self.sampled(goal) else goal.environment
        command = runner.with_room(goal.preset, [w.format(**fields) for w in shlex.split(text)])
        return command, runner.environment_of(goal.preset) | {
            name: str(value).format(**fields) for name, value in environment.items()}

    def run_chunk(self, goal):
        first, count, retried = self.chunk(goal)
        command, environment = self.command(goal, goal.command, first, count)
        again = " ".join([f"{k}={shlex.quote(v)}" for k, v in environment.items()] +
                         [shlex.quote(os.path.relpath(w, ROOT) if w.startswith(str(ROOT)) else w)
                          for w in command])
        started = time.monotonic()
        try:
            ended = self.children.run(command, timeout=goal.chunk_seconds, cwd=ROOT,
                                      env=os.environ | environment)
        except runner.Stopped:
            return
        if self.stopping.is_set() and ended.returncode != 0:
            return  # cut off by us: tried again the next time
        outcome = read(ended.stdout, goal.figure)
        if ended.returncode != 0:
            outcome.failures = max(outcome.failures, 1)
        elif not (outcome.tried or outcome.cached or outcome.failures or outcome.skipped or
                  outcome.missing):
            outcome.failures = 1
            ended.stdout += "\n(the command said nothing of what it tried)"
        with self.lock:
            self.record(goal, first, count, retried, outcome, again, time.monotonic() - started)
            runner.write_json(self.kept, {name: dataclasses.asdict(done)
                                          for name, done in self.done.items()})
        if outcome.failures:
            path = self.options.work / f"{goal.name}-{first}.txt"
            path.write_text(f"$ {again}\n{ended.stdout}")
            print(f"\nFAILED{' (hung)' if ended.returncode is None else ''}: {goal.promise}\n"
                  f"  again: {again}\n  output: {path}\n{tail(ended.stdout)}", flush=True)

    def record(self, goal, first, count, retried, outcome, again, seconds):
        done, sources = self.done[goal.name], self.sources[goal.name]
        done.seconds += seconds
        if outcome.skipped and outcome.tried == 0 and outcome.failures == 0:
            done.skipped = outcome.skipped
            return
        if retried is not None:
            before = retried.get("tried", 0)
            done.tried -= before
            if before:
                done.by_sources[retried["sources"]] -= before
            gone = retried["failures"] - outcome.failures
            if gone > 0 and not goal.repeats:
                done.unexplained.append({"failures": gone, "again": retried["again"]})
        done.tried += outcome.tried
        done.cached += outcome.cached
        done.by_sources[sources] = done.by_sources.get(sources, 0) + outcome.tried
        missing = outcome.missing + ([outcome.skipped] if outcome.skipped else [])
        done.missing += [what for what in missing if what not in done.missing]
        done.of = outcome.of or done.of
        end = first + count
        if outcome.next is not None and not self.sampled(goal) and first < outcome.next < end:
            end = outcome.next
        if outcome.failures:
            done.open.append({"first": first, "count": end - first, "sources": sources,
                              "failures": outcome.failures, "again": again,
                              "tried": outcome.tried})
        if retried is None:
            done.next = end
        else:
            done.open.remove(retried)
            if end < first + count:
                done.open.append({"first": end, "count": first + count - end, "sources": "",
                                  "failures": 0, "again": "", "tried": 0})

    def in_time(self):
        return not self.stopping.is_set() and (self.deadline is None or
                                               time.monotonic() < self.deadline)

    def advance(self, goal, once, at_least_one):
        """The goal's chunks, one after the other, or one. A thread's error ends the whole run."""
        try:
            while not self.stopping.is_set() and not self.finished(goal) and (
                    at_least_one or self.in_time()):
                at_least_one = False
                self.run_chunk(goal)
                self.progress(goal)
                if once:
                    break
        except Exception:
            self.break_off()

    def progress(self, goal):
        if self.stopping.is_set():
            return
        done = self.done[goal.name]
        parts, wanted = self.parts(goal), self.wanted(goal)
        shares = [done.next / parts if parts else 0, done.tried / wanted if wanted else 0]
        share = min(1.0, max(shares))
        left = ""
        if share > 0:
            left = f", about {(done.seconds / share - done.seconds) / 60:.0f} min of it left"
        print(f"{time.strftime('%H:%M:%S')}  {goal.name:24} {done.tried:>13,} of {self.whole(goal)} "
              f"{goal.unit}, {done.failures} failed{left}", flush=True)

    def whole(self, goal):
        """What is to be tried, as the table says it."""
        if wanted := self.wanted(goal):
            return f"{wanted:,}"
        parts = self.parts(goal)
        whole = f"{parts:,}" if parts else "?"
        return f"({self.done[goal.name].next:,}/{whole} {goal.part})" if goal.part else whole

    def run(self):
        try:
            self.run_all()
        except Exception:
            self.break_off()

    def run_all(self):
        together = [goal for goal in self.goals if not goal.alone]
        # With a time limit every goal of a slice gets one chunk at least.
        for goal in self.goals:
            if goal.alone:
                self.advance(goal, once=False, at_least_one=True)
        with concurrent.futures.ThreadPoolExecutor(self.options.jobs) as pool:
            def each(goals, **how):
                list(pool.map(lambda goal: self.advance(goal, **how), goals))
            if self.options.slice:
                each(together, once=False, at_least_one=True)
                return
            # Each in turn a chunk, so that a run that is cut off has done some of everything.
            while self.in_time() and (left := [g for g in together if not self.finished(g)]):
                each(left, once=True, at_least_one=False)

    def break_off(self):
        self.error = self.error or traceback.format_exc()
        self.stop()

    def stop(self):
        self.stopping.set()
        self.children.stop()

    def report(self):
        print(f"\n{'row':8} {'promise':66} {'tried':>14} {'of':>24} {'failed':>6}")
        for goal in self.goals:
            done = self.done[goal.name]
            tried = "skipped" if done.skipped else f"{done.tried:,}"
            print(f"{goal.row:8} {goal.promise[:66]:66} {tried:>14} {self.whole(goal):>24} "
                  f"{done.failures:>6}  {goal.unit}")
            if done.skipped:
                print(f"{'':9}because {done.skipped}")
            for what in done.missing:
                print(f"{'':9}without {what}")
            if done.cached:
                print(f"{'':9}and {done.cached:,} results of earlier runs, of the same sources")
            if set(done.by_sources) - {self.sources[goal.name]}:
                print(f"{'':9}{done.by_sources.get(self.sources[goal.name], 0):,} of them with today's "
                      "sources")
            for chunk in done.open:
                if chunk["failures"]:
                    print(f"{'':9}again: {chunk['again']}")
            for chunk in done.unexplained:
                print(f"{'':9}{chunk['failures']} not met again, nor explained: {chunk['again']}")
        if self.options.json:
            runner.write_json(self.options.json, [
                dataclasses.asdict(goal) | dataclasses.asdict(done) | {"failures": done.failures}
                for goal in self.goals for done in [self.done[goal.name]]])
        failed = sum(self.done[goal.name].failures for goal in self.goals)
        short = [g.name for g in self.goals if not self.finished(g)]
        print(f"\n{failed} failures" + (f"; not tried to the end: {', '.join(short)}" if short else ""),
              flush=True)
        return 1 if failed else 0

    def call(self, *command, **how):
        """Of what comes before the campaigns: prints what it says if it fails, and ends all."""
        ended = self.children.run(command, cwd=ROOT, **how)
        if ended.returncode != 0:
            print(tail(ended.stdout, 200), file=sys.stderr)
            raise RuntimeError(f"{shlex.join(command)} failed")

    def build(self):
        wanted = {}
        for goal in self.goals:
            if goal.preset:
                wanted.setdefault(goal.preset, set()).add(goal.target)
        for preset, targets in wanted.items():
            print(f"building {preset}: {', '.join(sorted(targets))}", flush=True)
            self.call("cmake", "--preset", preset)
            # The programs are run as they are built, to list their tests.
            self.call(*runner.with_room(preset, [
                "cmake", "--build", "--preset", preset, "--parallel", str(self.options.jobs),
                "--target", *sorted(targets)]))
        for goal in self.goals:
            if goal.prepare and not self.finished(goal):
                print(f"preparing {goal.name}", flush=True)
                first, count, _ = self.chunk(goal)
                self.call(*self.command(goal, goal.prepare, first, count)[0])


def tail(text, lines=60):
    return "\n".join("    " + line for line in text.splitlines()[-lines:])


def run(campaign):
    """All of it; True if it was interrupted."""
    work = threading.Thread(target=campaign.run, daemon=True)
    try:
        campaign.build()
        # The time is for trying, not for building.
        if campaign.options.minutes:
            campaign.deadline = time.monotonic() + campaign.options.minutes * 60
        work.start()
        while work.is_alive():
            work.join(0.5)
        return False
    except KeyboardInterrupt:
        runner.ignore_signals()
        campaign.stop()
        if work.ident is not None:
            work.join(10)
        return True


def main():
    parser = argparse.ArgumentParser(description="Tries keel's promises and prints the goal table.")
    parser.add_argument("--slice", action="store_true", help="the short run")
    parser.add_argument("--minutes", type=float, default=0, help="stop beginning chunks after these")
    parser.add_argument("--only", metavar="TEXT", action="append", default=[],
                        help="goals of that name or row, else whose promise contains it; may be repeated")
    parser.add_argument("--fresh", action="store_true", help="forget what the long run has done")
    parser.add_argument("--mended", action="store_true",
                        help="forget failures that were not met again, of those named by --only")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--json", type=pathlib.Path, help="write the table there too")
    parser.add_argument("--report", action="store_true", help="only print what has been done so far")
    parser.add_argument("--work", type=pathlib.Path, default=ROOT / ".build" / "trust")
    options = parser.parse_args()
    if options.minutes < 0 or options.jobs < 1:
        parser.error("--minutes and --jobs are positive")
    if options.mended and not options.only:
        parser.error("--mended goes with --only")
    goals = load()
    chosen = {text: matching(goals, text) for text in options.only}
    for text, found in chosen.items():
        if not found:
            parser.error(f"no goal matches {text}; there are {', '.join(g.name for g in goals)}")
    if chosen:
        goals = [goal for goal in goals if any(goal in found for found in chosen.values())]
    if options.report:
        return Campaign(options, goals).report()
    runner.hold(options.work)
    runner.stop_on_signals()
    campaign = Campaign(options, goals)
    interrupted = run(campaign)
    code = campaign.report()
    if campaign.error:
        print(f"trust: broken off:\n{campaign.error}", file=sys.stderr)
        return 3
    if interrupted:
        print("interrupted" + ("" if options.slice else ": the next run goes on from here"))
        return 130
    return code


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
    except (OSError, RuntimeError) as error:
        # Nor may what is left in a buffer for a reader that is gone change the exit code.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        print(f"trust: {error}", file=sys.stderr)
        sys.exit(3)
