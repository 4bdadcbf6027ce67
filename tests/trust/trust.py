#!/usr/bin/env python3
"""Runs the campaigns behind keel's promises, and prints the goal table: what was tried, what failed.

goals.toml beside this script has one table a campaign: the promise, the command, how much of it is
tried in a slice (`make trust`, about ten minutes) and in the long run (`make nightly`). A campaign is
a space of numbered parts (seeds, or the cases of an enumeration): it runs in chunks, each of which
prints lines

  property=NAME tried=N failures=F seconds=S

(or lost=, partial=, holes= in place of failures=), with whatever else it has to say; a chunk that exits with an error counts as one failure at least, and
its command is what to run again. The long run keeps what it has done in the work directory and goes
on from there, also after Ctrl-C: `--fresh` begins anew. Sources may change between runs: the table says how
much was tried with those of today.

Exit code: 0 nothing failed; 1 something did; 2 wrong use.
"""
import argparse
import concurrent.futures
import dataclasses
import hashlib
import json
import os
import pathlib
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
import tomllib

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
LINE = re.compile(r"^property=\S+ .*$", re.MULTILINE)
PAIR = re.compile(r"(\w+)=(\d+)\b")
FAILED = {"failures", "lost", "partial", "holes", "damaged", "accepted", "missed", "other"}
SKIP = re.compile(r"^property=\S+ skipped=\"(.*)\"$", re.MULTILINE)
MOST_FAILURES_KEPT = 20


@dataclasses.dataclass
class Goal:
    name: str
    row: str  # of the goal table in tests/README.md
    promise: str
    command: str  # {first} and {count} are filled in; {build} is the preset's build tree
    preset: str
    target: str  # what to build
    slice: int  # tried in a slice, in its own unit
    long: int  # tried in the long run
    unit: str
    chunk: int = 1  # parts a call, in the long run
    slice_chunk: int = 0  # parts a call in a slice; 0: as in the long run
    parts: int = 0  # how many there are; 0: without end
    environment: dict = dataclasses.field(default_factory=dict)
    slice_environment: dict = dataclasses.field(default_factory=dict)  # in its place in a slice
    first: int = 0  # number of the first part
    figure: str = "tried"  # which of the numbers it prints is counted
    alone: bool = False  # nothing else may run meanwhile
    chunk_seconds: int = 900  # a chunk that takes longer hangs


@dataclasses.dataclass
class Done:
    next: int = 0  # the first part that has not been tried
    tried: int = 0
    failures: int = 0
    seconds: float = 0.0
    skipped: str = ""
    again: list = dataclasses.field(default_factory=list)  # commands of what failed
    by_sources: dict = dataclasses.field(default_factory=dict)  # what was tried with which sources


def load():
    goals = []
    for name, table in tomllib.loads((HERE / "goals.toml").read_text()).items():
        goals.append(Goal(name=name, **table))
    return goals


def matching(goals, text):
    return ([goal for goal in goals if text in (goal.name, goal.row)] or
            [goal for goal in goals if text in goal.promise])


def state_of_sources():
    """A hash over what the figures are of."""
    digest = hashlib.sha256()
    for top in ["base", "vmap", "alloc", "cil"]:
        for path in sorted((ROOT / top).rglob("*")):
            if path.suffix in (".cc", ".h") and path.is_file():
                digest.update(str(path.relative_to(ROOT)).encode())
                digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


class Campaign:
    def __init__(self, options, goals):
        self.options = options
        self.goals = goals
        self.lock = threading.Lock()
        self.stopping = threading.Event()
        self.children = set()
        self.deadline = time.monotonic() + options.minutes * 60 if options.minutes else None
        self.kept = options.work / ("slice.json" if options.slice else "long.json")
        self.sources = state_of_sources()
        self.done = {goal.name: Done() for goal in goals}
        if not options.slice and not options.fresh and self.kept.exists():
            for name, done in json.loads(self.kept.read_text()).items():
                if name in self.done:
                    self.done[name] = Done(**done)

    def wanted(self, goal):
        return goal.slice if self.options.slice else goal.long

    def finished(self, goal):
        done = self.done[goal.name]
        return (bool(done.skipped) or done.tried >= self.wanted(goal) or
                (goal.parts > 0 and done.next >= goal.parts) or
                done.failures >= MOST_FAILURES_KEPT)

    def command(self, goal, first, count):
        build = ROOT / ".build" / goal.preset
        return [word.format(first=goal.first + first, count=count, build=build)
                for word in shlex.split(goal.command)]

    def environment(self, goal, first, count):
        sliced = self.options.slice and goal.slice_environment
        return {name: str(value).format(first=goal.first + first, count=count)
                for name, value in
                (goal.slice_environment if sliced else goal.environment).items()}

    def run_chunk(self, goal):
        done = self.done[goal.name]
        count = goal.slice_chunk if self.options.slice and goal.slice_chunk else goal.chunk
        if goal.parts:
            count = min(count, goal.parts - done.next)
        command = self.command(goal, done.next, count)
        environment = self.environment(goal, done.next, count)
        again = " ".join([f"{k}={shlex.quote(v)}" for k, v in environment.items()] +
                         [shlex.quote(os.path.relpath(w, ROOT) if w.startswith(str(ROOT)) else w)
                          for w in command])
        started = time.monotonic()
        child = subprocess.Popen(command, cwd=ROOT, env=os.environ | environment, text=True,
                                 errors="replace", stdout=subprocess.PIPE,
                                 stderr=subprocess.STDOUT, start_new_session=True)
        with self.lock:
            self.children.add(child)
        try:
            output, _ = child.communicate(timeout=goal.chunk_seconds)
            hung = False
        except subprocess.TimeoutExpired:
            kill_group(child)
            output, _ = child.communicate()
            hung = True
        finally:
            with self.lock:
                self.children.discard(child)
        if self.stopping.is_set() and child.returncode != 0:
            return  # cut off by us: tried again the next time
        pairs = [pair for line in LINE.findall(output) for pair in PAIR.findall(line)]
        tried = sum(int(number) for key, number in pairs if key == goal.figure)
        failures = sum(int(number) for key, number in pairs if key in FAILED)
        if hung or child.returncode != 0:
            failures = max(failures, 1)
        with self.lock:
            skipped = SKIP.search(output)
            if skipped and tried == 0 and failures == 0:
                done.skipped = skipped.group(1)
            elif tried == 0 and failures == 0:
                failures = 1
                output += "\n(the command said nothing of what it tried)"
            done.next += count
            done.tried += tried
            done.by_sources[self.sources] = done.by_sources.get(self.sources, 0) + tried
            done.failures += failures
            done.seconds += time.monotonic() - started
            if failures:
                done.again.append(again)
                path = self.options.work / f"{goal.name}-{done.next - count}.txt"
                path.write_text(f"$ {again}\n{output}")
                print(f"\nFAILED{' (hung)' if hung else ''}: {goal.promise}\n  again: {again}\n"
                      f"  output: {path}\n{tail(output)}", flush=True)
            self.keep()

    def keep(self):
        record = {name: dataclasses.asdict(done) for name, done in self.done.items()}
        new = self.kept.with_suffix(".new")
        new.write_text(json.dumps(record, indent=1))
        new.rename(self.kept)

    def in_time(self):
        return not self.stopping.is_set() and (self.deadline is None or
                                               time.monotonic() < self.deadline)

    def work_on(self, goal):
        """One goal's chunks, one after the other. With a time limit every goal gets one at least."""
        first = True
        while not self.finished(goal) and (first or self.in_time()) and not self.stopping.is_set():
            first = False
            self.run_chunk(goal)
            self.progress(goal)

    def progress(self, goal):
        done = self.done[goal.name]
        wanted = self.wanted(goal)
        share = min(1.0, done.tried / wanted) if wanted else 1.0
        left = done.seconds / share - done.seconds if share > 0 else 0
        print(f"{time.strftime('%H:%M:%S')}  {goal.name:24} {done.tried:>13,} of {wanted:,} "
              f"{goal.unit}, {done.failures} failed, about {left / 60:.0f} min of it left", flush=True)

    def run(self):
        together = [goal for goal in self.goals if not goal.alone]
        alone = [goal for goal in self.goals if goal.alone]
        for goal in alone:
            self.work_on(goal)
        with concurrent.futures.ThreadPoolExecutor(self.options.jobs) as pool:
            if self.options.slice:
                list(pool.map(self.work_on, together))
                return
            # Each in turn a chunk, so that a run that is cut off has done some of everything.
            while self.in_time() and (open_goals := [g for g in together if not self.finished(g)]):
                def one(goal):
                    if self.in_time():
                        self.run_chunk(goal)
                        self.progress(goal)
                list(pool.map(one, open_goals))

    def stop(self):
        self.stopping.set()
        with self.lock:
            for child in self.children:
                kill_group(child)

    def report(self):
        print(f"\n{'row':8} {'promise':66} {'tried':>14} {'of':>12} {'failed':>6}")
        for goal in self.goals:
            done = self.done[goal.name]
            tried = "skipped" if done.skipped else f"{done.tried:,}"
            print(f"{goal.row:8} {goal.promise[:66]:66} {tried:>14} {self.wanted(goal):>12,} "
                  f"{done.failures:>6}  {goal.unit}")
            if done.skipped:
                print(f"{'':9}because {done.skipped}")
            if len(done.by_sources) > 1:
                print(f"{'':9}{done.by_sources.get(self.sources, 0):,} of them with today's sources")
            for again in done.again:
                print(f"{'':9}again: {again}")
        record = [dataclasses.asdict(goal) | dataclasses.asdict(self.done[goal.name])
                  for goal in self.goals]
        if self.options.json:
            self.options.json.write_text(json.dumps(record, indent=1))
        failed = sum(done.failures for done in self.done.values())
        short = [g.name for g in self.goals if not self.finished(g)]
        print(f"\n{failed} failures" + (f"; not tried to the end: {', '.join(short)}" if short else ""))
        return 1 if failed else 0


def tail(text, lines=60):
    return "\n".join("    " + line for line in text.splitlines()[-lines:])


def kill_group(child):
    try:
        os.killpg(child.pid, signal.SIGTERM)
        try:
            child.wait(3)
        except subprocess.TimeoutExpired:
            pass
        os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def build(goals):
    wanted = {}
    for goal in goals:
        wanted.setdefault(goal.preset, set()).add(goal.target)
    for preset, targets in wanted.items():
        print(f"building {preset}: {', '.join(sorted(targets))}", flush=True)
        subprocess.run(["cmake", "--preset", preset], cwd=ROOT, check=True,
                       stdout=subprocess.DEVNULL)
        subprocess.run(["cmake", "--build", "--preset", preset, "--parallel",
                        str(os.cpu_count()), "--target", *sorted(targets)], cwd=ROOT, check=True,
                       stdout=subprocess.DEVNULL)


def main():
    parser = argparse.ArgumentParser(description="Tries keel's promises and prints the goal table.")
    parser.add_argument("--slice", action="store_true", help="the short run")
    parser.add_argument("--minutes", type=float, default=0, help="stop beginning chunks after these")
    parser.add_argument("--only", metavar="TEXT", action="append", default=[],
                        help="goals of that name or row, else whose promise contains it; may be repeated")
    parser.add_argument("--fresh", action="store_true", help="forget what the long run has done")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--json", type=pathlib.Path, help="write the table there too")
    parser.add_argument("--report", action="store_true", help="only print what has been done so far")
    parser.add_argument("--work", type=pathlib.Path, default=ROOT / ".build" / "trust")
    options = parser.parse_args()
    if options.minutes < 0 or options.jobs < 1:
        parser.error("--minutes and --jobs are positive")
    goals = load()
    chosen = {text: matching(goals, text) for text in options.only}
    for text, found in chosen.items():
        if not found:
            parser.error(f"no goal matches {text}; there are {', '.join(g.name for g in goals)}")
    if chosen:
        goals = [goal for goal in goals if any(goal in found for found in chosen.values())]
    options.work.mkdir(parents=True, exist_ok=True)
    campaign = Campaign(options, goals)
    if options.report:
        return campaign.report()
    build(goals)
    # The time is for trying, not for building.
    if options.minutes:
        campaign.deadline = time.monotonic() + options.minutes * 60
    signal.signal(signal.SIGTERM, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
    runner = threading.Thread(target=campaign.run, daemon=True)
    interrupted = False
    try:
        runner.start()
        while runner.is_alive():
            runner.join(0.5)
    except KeyboardInterrupt:
        interrupted = True
        campaign.stop()
        runner.join(10)
    code = campaign.report()
    if interrupted:
        print("interrupted" + ("" if options.slice else ": the next run goes on from here"))
        return 130
    return code


if __name__ == "__main__":
    try:
        sys.exit(main())
    except subprocess.CalledProcessError as error:
        sys.exit(f"trust: {shlex.join(map(str, error.cmd))} failed")
