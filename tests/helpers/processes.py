"""Python in a process of its own that imports what this one does, from the same places in the same order."""

import os
import subprocess
import sys


def environment(**more):
    """The variables of such a process, and `more`.

    The checkout stands last on the path, as under pytest, so that an installed reprune is not hidden by the
    source folder, which may lack the compiled core.
    """
    places = os.pathsep.join(filter(None, sys.path))
    return {**os.environ, "PYTHONPATH": places, "PYTHONSAFEPATH": "1", **more}


def run_module(module, *words, **how):
    """`python -m module words`, as :func:`run_python`."""
    return run_python("-m", module, *words, **how)


def run_code(code, **how):
    """`python -c code`, as :func:`run_python`."""
    return run_python("-c", code, **how)


def run_python(*words, variables=(), **how):
    """`python words`, awaited: its exit status, and what it printed, as text."""
    command = [sys.executable, *map(str, words)]
    return subprocess.run(command, env=environment(**dict(variables)), capture_output=True, text=True, **how)
