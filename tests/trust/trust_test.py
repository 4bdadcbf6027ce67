#!/usr/bin/env python3
"""What trust.py keeps of chunks that failed, and of what it was told."""
import argparse
import pathlib
import sys
import tempfile
import unittest

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import trust  # noqa: E402


def campaign_of(work, goal, **more):
    options = argparse.Namespace(slice=False, fresh=False, report=False, mended=False, work=work,
                                 json=None, minutes=0, jobs=1, only=[goal.name])
    vars(options).update(more)
    return trust.Campaign(options, [goal])


class Chunks(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.work = pathlib.Path(directory.name)

    def goal(self, code, **fields):
        usual = {"name": "g", "row": "1", "promise": "p", "unit": "u", "slice": 10, "long": 10,
                 "chunk": 10, "command": f"{sys.executable} -c 'import sys; {code}'"}
        return trust.Goal(**(usual | fields))

    def run_chunk(self, code, sources, **fields):
        more = {k: fields.pop(k) for k in ("mended",) if k in fields}
        campaign = campaign_of(self.work, self.goal(code, **fields), **more)
        campaign.sources = {"g": sources}
        stdout, sys.stdout = sys.stdout, open("/dev/null", "w")
        try:
            if not campaign.finished(campaign.goals[0]):
                campaign.run_chunk(campaign.goals[0])
            return campaign.done["g"], campaign.report()
        finally:
            sys.stdout.close()
            sys.stdout = stdout

    FAILS = 'print("property=g tried=10 failures=2"); sys.exit(1)'
    PASSES = 'print("property=g tried=10 failures=0")'

    def test_a_seed_that_passes_after_an_edit_was_mended(self):
        self.run_chunk(self.FAILS, "a")
        done, code = self.run_chunk(self.PASSES, "b")
        self.assertEqual((done.failures, done.tried, code), (0, 10, 0))

    def test_a_failure_that_does_not_repeat_is_not_forgotten_by_an_edit(self):
        self.run_chunk(self.FAILS, "a", repeats=False)
        done, code = self.run_chunk(self.PASSES, "b", repeats=False)
        self.assertEqual((done.failures, done.open, code), (2, [], 1))
        done, code = self.run_chunk(self.PASSES, "c", repeats=False)
        self.assertEqual((done.failures, code), (2, 1))
        done, code = self.run_chunk(self.PASSES, "c", repeats=False, mended=True)
        self.assertEqual((done.failures, code), (0, 0))

    def test_a_chunk_that_fails_again_counts_once(self):
        self.run_chunk(self.FAILS, "a", repeats=False)
        done, code = self.run_chunk(self.FAILS, "b", repeats=False)
        self.assertEqual((done.failures, done.tried, code), (2, 10, 1))

    def test_results_that_still_hold_are_not_tried_but_something_was_said(self):
        done, code = self.run_chunk('print("property=g tried=0 cached=10 failures=0")', "a")
        self.assertEqual((done.tried, done.cached, done.failures, code), (0, 10, 0, 0))
        done, code = self.run_chunk("pass", "a")
        self.assertEqual((done.failures, code), (1, 1))

    def test_a_goal_is_tried_again_when_what_it_reads_has_changed(self):
        goals = [self.goal("pass"), self.goal("pass", sources=["tests/mutants"]),
                 self.goal("other"), self.goal("pass", long=11)]
        for number, goal in enumerate(goals):
            goal.name = str(number)
        states = trust.states_of_sources(goals)
        self.assertEqual(len({states["0"], states["1"], states["2"]}), 3)


if __name__ == "__main__":
    unittest.main()
