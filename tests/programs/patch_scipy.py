"""Plugin for a run of scipy's own tests: they call our functions; a last line counts the calls."""

from reprune import hierarchy

NAMES = ("linkage", "single", "complete", "average", "ward", "fcluster", "fclusterdata")
calls = {"passed": 0, "patched": 0, "core": 0}
running = False  # a test of scipy's


def counted(key, function, counts):
    def wrapper(*args, **kwargs):
        result = function(*args, **kwargs)
        if running:
            calls[key] += counts(result)
        return result

    return wrapper


def is_scipys(item):
    return item.module.__name__.startswith("scipy.")


def pytest_collection_modifyitems(items):
    # not before the import: its decorators look scipy's functions up in a table
    for module in {item.module for item in items if is_scipys(item)}:
        for name in NAMES:
            if hasattr(module, name):
                setattr(module, name, counted("patched", getattr(hierarchy, name), lambda result: 1))
    hierarchy._euclidean = counted("core", hierarchy._euclidean, lambda result: result is not None)


def pytest_runtest_setup(item):
    global running
    running = is_scipys(item)


def pytest_runtest_makereport(item, call):
    if is_scipys(item) and call.when == "call":
        calls["passed"] += call.excinfo is None


def pytest_terminal_summary(terminalreporter):
    counts = ", ".join(f"{count} {what}" for what, count in calls.items())
    terminalreporter.write_line(f"patch_scipy: {counts}")
