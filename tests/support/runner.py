"""What the scripts that run test programs share: children that never outlive them, one run at a time
in a work directory, records that are whole or not there, and what a preset's programs need to run.
"""
import fcntl
import functools
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent


class Stopped(Exception):
    """No child is started any more."""


class Children:
    """Programs in process groups of their own, run from any thread; whoever stops them stops all.

    `patience_seconds` is what they get to clean up between SIGTERM and SIGKILL.
    """

    def __init__(self, patience_seconds):
        self.patience_seconds = patience_seconds
        self.lock = threading.Lock()
        self.stopping = False
        self.running = set()

    def run(self, command, timeout=None, **how):
        """Runs it to its end; returncode is None if it took longer than `timeout` seconds."""
        with self.lock:
            if self.stopping:
                raise Stopped
            child = subprocess.Popen(command, text=True, errors="replace", start_new_session=True,
                                     stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                     stderr=subprocess.STDOUT, **how)
            self.running.add(child)
        try:
            output, _ = child.communicate(timeout=timeout)
            code = child.returncode
        except subprocess.TimeoutExpired:
            self.end([child])
            output, code = child.communicate()[0], None
        except BaseException:
            self.end([child])
            child.wait()
            raise
        finally:
            with self.lock:
                self.running.discard(child)
        return subprocess.CompletedProcess(command, code, output)

    def stop(self):
        with self.lock:
            self.stopping = True
            running = list(self.running)
        self.end(running)

    def end(self, children):
        """Asks all, waits once for all, kills what is left of their groups."""
        signal_groups(children, signal.SIGTERM)
        deadline = time.monotonic() + self.patience_seconds
        while time.monotonic() < deadline and any(child.poll() is None for child in children):
            time.sleep(0.05)
        signal_groups(children, signal.SIGKILL)


def signal_groups(children, number):
    for child in children:
        try:
            os.killpg(child.pid, number)
        except ProcessLookupError:
            pass


STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def stop_on_signals():
    """SIGTERM and SIGHUP are KeyboardInterrupt too, but for what the caller ignores (nohup)."""
    for number in STOPS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)


def ignore_signals():
    """While stopping: a second Ctrl-C must not leave half of it undone."""
    for number in STOPS:
        signal.signal(number, signal.SIG_IGN)


def hold(work):
    """Makes the work directory ours until this process ends; if it is another's, exits with 2."""
    work.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(work / "lock", os.O_RDWR | os.O_CREAT, 0o666)  # closed by our end alone
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print(f"another run works in {work}; --work names another place", file=sys.stderr)
        sys.exit(2)


def write_json(path, value):
    """The old text or the new one is there, whenever we end."""
    new = path.with_suffix(".new")
    new.write_text(json.dumps(value, indent=1))
    new.rename(path)


@functools.cache
def can_fix_addresses():
    return subprocess.run(["setarch", "-R", "true"], stderr=subprocess.DEVNULL).returncode == 0


def with_room(preset, command):
    """ThreadSanitizer wants addresses that are not randomised by many bits."""
    fixed = preset == "tsan" and can_fix_addresses()
    return ["setarch", "-R", *command] if fixed else command


@functools.cache
def environment_of(preset):
    """What CTest sets for the preset's tests, sanitizers' options above all."""
    presets = json.loads((ROOT / "CMakePresets.json").read_text())["testPresets"]
    return {name: value for test in presets if test["name"] == preset
            for name, value in test.get("environment", {}).items()}
