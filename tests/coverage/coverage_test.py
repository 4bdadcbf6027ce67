#!/usr/bin/env python3
"""What the coverage report counts, and whom an excuse excuses."""
import pathlib
import sys
import tempfile
import unittest

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import coverage  # noqa: E402

SOURCE = ["int never() {", "  return 1;", "}", "int f(int a) {", "  return a ? 1 : 2;", "}",
          "int g(int a) { return a ? 3 : 4; }"]


class Coverage(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.root = pathlib.Path(directory.name)
        (self.root / "x.cc").write_text("\n".join(SOURCE))

    def justified(self, **tables):
        return coverage.Justified(tables, self.root)

    def judge(self, justified):
        # As llvm-cov exports it: line, column, count, has count, begins a region, is a gap.
        segments = [[1, 13, 0, True, True, False], [3, 2, 0, False, False, False],
                    [4, 14, 5, True, True, False], [6, 2, 0, False, False, False],
                    [7, 14, 2, True, True, False], [7, 36, 0, False, False, False]]
        branches = [coverage.Branch("x.cc", 5, 10, 5, 0), coverage.Branch("x.cc", 7, 23, 0, 2)]
        return coverage.judge(branches, {"x.cc": coverage.line_counts(segments)}, justified,
                              lambda file: SOURCE)

    def test_a_function_without_branches_that_never_runs_shows_in_its_lines(self):
        ways, lines, missed = self.judge(self.justified())
        self.assertEqual(lines["x.cc"], [7, 4, 0])
        self.assertEqual(ways["x.cc"], [4, 2, 0])
        self.assertEqual([line for line, _ in missed["x.cc"]], [1, 2, 3, 5, 7])
        self.assertLess(coverage.share(lines["x.cc"]), 58)

    def test_an_excuse_is_of_one_line_and_of_one_kind(self):
        one = {"file": "x.cc", "text": "return a ? 1", "reason": "r"}
        justified = self.justified(branch=[one], line=[one | {"text": "int never()"}])
        ways, lines, missed = self.judge(justified)
        self.assertEqual((ways["x.cc"], lines["x.cc"]), ([4, 2, 1], [7, 4, 1]))
        self.assertEqual([line for line, _ in missed["x.cc"]], [2, 3, 7])
        self.assertEqual((justified.wrong, justified.unused()), ([], []))

    def test_an_excuse_may_be_of_the_lines_that_follow(self):
        never = {"file": "x.cc", "text": "int never()", "reason": "r", "lines": 3}
        self.assertEqual(self.judge(self.justified(line=[never]))[1]["x.cc"], [7, 4, 3])

    def test_an_excuse_of_two_lines_or_of_none_excuses_nothing(self):
        for text, times in (("return a", 2), ("return b", 0)):
            justified = self.justified(branch=[{"file": "x.cc", "text": text, "reason": "r"}])
            self.assertEqual(len(justified.wrong), 1)
            self.assertIn(f"stands {times} times", justified.wrong[0])
            self.assertEqual(self.judge(justified)[0]["x.cc"], [4, 2, 0])

    def test_what_is_excused_stands_in_the_sources(self):
        self.assertEqual(coverage.load_justified().wrong, [])


if __name__ == "__main__":
    unittest.main()
