"""The C++ core under the sanitizers: its tests and the fuzzer, each on a build of its own.

``python -m tests.tools.sanitize`` takes all three, ``python -m tests.tools.sanitize thread --problems 5000``
one. It needs GCC and Linux. Builds lie in ``build/sanitize``. Python is not built with a sanitizer, so the
runtime is loaded first, and a ``sitecustomize`` puts the core built here into ``sys.modules``, also in
processes that tests start. These are left out:

- leaks, because Python, numpy and torch keep memory until the end; test_interrupt.py weighs what we keep;
- tests that weigh the memory of a process, of which the sanitizers take a multiple;
- tests of how soon a signal or an error is heard, because all is slower here;
- under the address sanitizer the test of forks at any time: GCC 12's allocator for it does not take its own
  lock over a fork, so that a child may wait for it for ever in the first allocation that Python makes.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILDS = ROOT / "build" / "sanitize"
RUNTIMES = {"address": "libasan.so", "undefined": "libubsan.so", "thread": "libtsan.so"}
OPTIONS = {
    "ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=1",
    "UBSAN_OPTIONS": "print_stacktrace=1",
    "TSAN_OPTIONS": "halt_on_error=1:ignore_noninstrumented_modules=1:die_after_fork=0",
    "OPENBLAS_NUM_THREADS": "1",  # threads that are not ours, of which the thread sanitizer sees a part
    "OMP_NUM_THREADS": "1",
}
TESTS = "core counts coverage coverage_block cut extremes fork hierarchy interrupt linkage".split()
TESTS += "pairwise selection tie_rule ties".split()
LEFT_OUT = "memory or heard_within or stops_the_layers"
MORE_LEFT_OUT = {"address": " or forked_children"}
SITE = """import importlib.util, sys
spec = importlib.util.spec_from_file_location("reprune._core", {core!r})
sys.modules["reprune._core"] = core = importlib.util.module_from_spec(spec)
spec.loader.exec_module(core)
"""


def build(kind):
    """The folder of a package whose core is built with the sanitizer."""
    folder = BUILDS / kind
    settings = {
        "build-dir": BUILDS / f"{kind}-objects",
        "cmake.build-type": "RelWithDebInfo",  # else its symbols are stripped
        "install.strip": "false",
        "cmake.define.REPRUNE_SANITIZE": kind,
        "cmake.define.REPRUNE_CUDA": "OFF",
    }
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--upgrade", "--target", folder]
    command += [f"-C{name}={value}" for name, value in settings.items()]
    subprocess.run([*command, ROOT], check=True)
    (core,) = (folder / "reprune").glob("_core*.so")
    (folder / "sitecustomize.py").write_text(SITE.format(core=str(core)))
    return folder


def library(name):
    """The file of a library as the compiler finds it."""
    command = [os.environ.get("CXX", "g++"), f"-print-file-name={name}"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"of {', '.join(RUNTIMES)}; default: all")
    parser.add_argument("--problems", type=int, default=5000, help="for the fuzzer")
    parser.add_argument("--seed", type=int, default=0, help="of the fuzzer")
    options = parser.parse_args()
    if unknown := set(options.kinds) - set(RUNTIMES):
        parser.error(f"KIND: expected {', '.join(RUNTIMES)}; got {', '.join(unknown)}")
    tests = [ROOT / "tests" / f"test_{name}.py" for name in TESTS]
    pytest = ["-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
    fuzz = ["-m", "tests.tools.fuzz", "--problems", str(options.problems), "--seed", str(options.seed)]
    failed = []
    for kind in options.kinds or RUNTIMES:
        folder = build(kind)
        loaded = f"{library(RUNTIMES[kind])} {library('libstdc++.so')}"
        places = f"{folder}{os.pathsep}{ROOT}"  # the source folder last, or it would hide what was built
        environment = {**os.environ, **OPTIONS, "PYTHONPATH": places, "LD_PRELOAD": loaded}
        chosen = ["-k", f"not ({LEFT_OUT}{MORE_LEFT_OUT.get(kind, '')})"]
        for command in ([*pytest, *chosen], fuzz):
            print(f"{kind}:", *command, flush=True)
            done = subprocess.run([sys.executable, *command], env=environment, cwd=folder)
            if done.returncode:
                failed.append(kind)
    print(f"failed under: {', '.join(failed)}" if failed else "nothing found")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
