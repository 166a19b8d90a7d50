"""What an import of reprune brings along and leaves alone; run by tests/helpers/imports.py.

Prints a JSON object of what was found. One process answers for
several tests: torch takes seconds.
"""

import json
import os
import sys

import numpy
import torch


def modules():
    return sorted(sys.modules)


def maps():
    """The files that this process has mapped."""
    with open("/proc/self/maps") as file:
        return file.read()


def without_the_core():
    """In a child, as if the core were not built: what each backend answers."""
    here, there = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            sys.modules["reprune._core"] = None
            import reprune
            from reprune.clustering import backends

            said = {
                "reference": reprune.linkage(numpy.eye(3), backend="reference").shape,
                "unavailable": backends.unavailable("cpp"),
            }
            try:
                reprune.linkage(numpy.eye(3))
            except reprune.BackendUnavailable as error:
                said["error"] = str(error)
            os.write(there, json.dumps(said).encode())
        finally:
            sys.stderr.flush()
            os._exit(0)
    os.close(there)
    with open(here) as file:
        text = file.read()
    os.waitpid(pid, 0)
    return json.loads(text)


def called():
    """The modules after calls on data of the CPU, while nobody may ask for Triton."""
    import reprune
    from reprune.clustering import backends

    ask, backends._no_triton = backends._no_triton, None
    for points in (numpy.eye(3), torch.eye(3)):
        Z = reprune.linkage(points)
        reprune.cut(Z, 1.0)
        reprune.select_filters(points, 1)
        reprune.max_coverage(numpy.zeros((3, 2), int), 1)
    backends._no_triton = ask
    return modules()


def missing(package, module):
    """The error of an import of `module` where `package` is not installed."""
    sys.modules[package] = None
    try:
        __import__(module)
    except ImportError as error:
        return str(error)
    return ""


def main():
    found = {"no core": without_the_core(), "torch": modules()}
    linux = sys.platform.startswith("linux")
    found["maps with torch"] = maps() if linux else ""
    import reprune

    for name in reprune.__all__:  # loaded on first use
        getattr(reprune, name)
    found["reprune"] = modules()
    found["path"] = sys.path
    found["shape"] = reprune.linkage(numpy.eye(3)).shape
    found["maps with the core"] = maps() if linux else ""
    found["called"] = called()
    found["no sklearn"] = missing("sklearn", "reprune.sklearn")
    found["no scipy"] = missing("scipy", "reprune.hierarchy")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
