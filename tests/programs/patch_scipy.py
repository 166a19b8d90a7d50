"""Plugin for a run of scipy's own tests: they call our functions; the last line counts the calls."""

from reprune import hierarchy

NAMES = ("linkage", "single", "complete", "average", "ward", "fcluster", "fclusterdata")
calls = {"patched": 0, "core": 0}


def counted(key, function, counts):
    def wrapper(*args, **kwargs):
        result = function(*args, **kwargs)
        calls[key] += counts(result)
        return result

    return wrapper


def pytest_collection_modifyitems(items):
    # not before the import: its decorators look scipy's functions up in a table
    for module in {item.module for item in items}:
        for name in NAMES:
            if hasattr(module, name):
                setattr(module, name, counted("patched", getattr(hierarchy, name), lambda result: 1))
    hierarchy._euclidean = counted("core", hierarchy._euclidean, lambda result: result is not None)


def pytest_terminal_summary(terminalreporter):
    terminalreporter.write_line(f"calls: {calls['patched']} patched, {calls['core']} core")
