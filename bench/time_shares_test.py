#!/usr/bin/env python3
"""What lock_share.sh makes of what perf saw: of samples in the functions that the rows of the
scoreboard look for, and of none at all."""

import json
import pathlib
import subprocess
import sys
import unittest

HERE = pathlib.Path(__file__).resolve().parent
COMMIT = "keel::bench::KeelEngine::commit(unsigned int, unsigned long, std::byte const*)"
ALLOCATE = "keel::Pool::kvmalloc(unsigned long, keel::AllocFlags)"


def sample(*frames):
    """As perf script prints one: the innermost frame first."""
    lines = [f"journal_driver  4711 "]
    lines += [f"\t    7f12ab34cd56 {symbol} ({module})" for symbol, module in frames]
    return "\n".join(lines) + "\n\n"


def user(symbol):
    return (symbol, "/x/journal_driver")


def kernel(symbol):
    return (symbol, "[kernel.kallsyms]")


def shares(recorded, *options):
    scripts = [[sys.executable, "-I", str(HERE / name), *words]
               for name, words in (("fold_stacks.py", []),
                                   ("time_shares.py", [*options, "--json"]))]
    folded = subprocess.run(scripts[0], input=recorded, text=True, check=True,
                            stdout=subprocess.PIPE)
    told = subprocess.run(scripts[1], input=folded.stdout, text=True, check=True,
                          stdout=subprocess.PIPE)
    return json.loads(told.stdout)


class Shares(unittest.TestCase):
    OPTIONS = ["--within", "KeelEngine::commit|keel::Pool::kv(malloc|free)",
               "--without", "fragment|KeelEngine::open|make_pool",
               "--share", "keel::Pool::kv(malloc|free)"]

    def test_of_what_is_within_and_not_without(self):
        recorded = (
            sample(user("__memmove_avx512"), user(COMMIT), user("main")) +
            sample(user(ALLOCATE), user(COMMIT), user("main")) +
            sample(kernel("do_user_addr_fault"), user(ALLOCATE), user(COMMIT)) +
            sample(user("keel::Mutex::lock_slow()"), user(COMMIT)) +
            sample(user(ALLOCATE), user("keel::(anonymous namespace)::fragment(keel::Pool&)")) +
            sample(user("main")))
        found = shares(recorded, *self.OPTIONS)
        self.assertEqual(found, {"samples": 4, "locks": 0.25, "kernel": 0.25,
                                 "locks_and_kernel": 0.5, "share": 0.5})

    def test_of_none_that_count(self):
        self.assertEqual(shares(sample(user("main")), *self.OPTIONS), {"samples": 0})

    def test_of_none_at_all(self):
        self.assertEqual(shares("", *self.OPTIONS), {"samples": 0})


if __name__ == "__main__":
    unittest.main()
