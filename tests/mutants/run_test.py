#!/usr/bin/env python3
"""What a mutant's result is of, and what counts as caught."""
import pathlib
import sys
import tempfile
import unittest

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import run  # noqa: E402

FILES = {
    "cil/cil.cc": "int cil;", "base/os.cc": "int os;", "vmap/window.cc": "int window;",
    "alloc/pool.cc": "int pool;", "tests/CMakeLists.txt": "", "tests/README.md": "",
    "tests/cil/judge.cc": "if (lost) fail();", "tests/cil/judge.h": "", "tests/cil/x_test.cc": "",
    "tests/support/sim_disk.cc": "", "tests/alloc/pool_test.cc": "", "third_party/j/CMakeLists.txt": "",
    "CMakeLists.txt": "", "CMakePresets.json": "", "tests/mutants/cil.toml": "",
}


class Results(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.addCleanup(setattr, run, "ROOT", run.ROOT)
        run.ROOT = pathlib.Path(directory.name)
        for name, text in FILES.items():
            (run.ROOT / name).parent.mkdir(parents=True, exist_ok=True)
            (run.ROOT / name).write_text(text)

    def signature(self, layer):
        run.signature_of_layer.cache_clear()
        return run.signature({"name": "m", "test": layer, "cases": ["a case"]})

    def test_a_result_is_of_all_that_it_depends_on(self):
        counts = {"cil": "cil base vmap alloc judge.cc judge.h x_test.cc sim_disk.cc CMakeLists.txt",
                  "alloc": "base vmap alloc pool_test.cc sim_disk.cc CMakeLists.txt"}
        for layer, words in counts.items():
            for name, text in FILES.items():
                before = self.signature(layer)
                (run.ROOT / name).write_text(text + "// changed")
                counted = before != self.signature(layer)
                (run.ROOT / name).write_text(text)
                self.assertEqual(before, self.signature(layer))
                parts = pathlib.PurePath(name).parts
                wanted = parts[-1] in words.split() or parts[0] in words.split() or name in (
                    "CMakePresets.json",)
                self.assertEqual(counted, wanted, f"{layer}: {name}")

    def test_a_skipped_case_has_caught_nothing(self):
        tree = run.Tree(run.ROOT / "work")
        program = tree.source / ".build" / "dev" / "tests" / "keel_cil_tests"
        program.parent.mkdir(parents=True)
        run.runner.environment_of.cache_clear()
        self.addCleanup(setattr, run.runner, "environment_of", run.runner.environment_of)
        run.runner.environment_of = lambda preset: {}
        one, two = "[doctest] test cases: 1 | 1 passed", "[doctest] test cases: 2 | 2 passed"
        for said, code, cases, wanted in (
                (one, 0, 1, "green"), (one, 1, 1, "red"), (f"skipped: no root\\n{one}", 77, 1, "skipped"),
                (f"skipped: no root\\n{two}", 0, 2, "skipped"), (f"skipped: a\\n{two}", 1, 2, "red"),
                (one, 77, 1, "red"), (one, 0, 2, "no case")):
            program.write_text(f"#!/bin/sh\nprintf '{said}\\n'\nexit {code}\n")
            program.chmod(0o755)
            result, _ = tree.run("dev", "cil", ["a case"] * cases, 0)
            self.assertEqual(result, wanted, (said, code))


if __name__ == "__main__":
    unittest.main()
