"""Plugin for a run of scikit-learn's own tests: they use our class, and a last line counts its fits."""

import sklearn.cluster

import reprune.sklearn

calls = {"passed": 0, "patched": 0, "core": 0}


class Counted(reprune.sklearn.AgglomerativeClustering):
    def _fit(self, X):
        super()._fit(X)
        calls["patched"] += 1
        calls["core"] += self._is_ours()
        return self


Counted.__name__ = "AgglomerativeClustering"


def pytest_configure():
    sklearn.cluster.AgglomerativeClustering = Counted  # before the tests import it


def pytest_runtest_makereport(item, call):
    if item.module.__name__.startswith("sklearn.") and call.when == "call":
        calls["passed"] += call.excinfo is None


def pytest_terminal_summary(terminalreporter):
    counts = ", ".join(f"{count} {what}" for what, count in calls.items())
    terminalreporter.write_line(f"patch_sklearn: {counts}")
