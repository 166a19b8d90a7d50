"""Plugin for a run of scikit-learn's own tests: they use our class, and the last line counts its fits."""

import sklearn.cluster

import reprune.sklearn

calls = {"patched": 0, "core": 0}


class Counted(reprune.sklearn.AgglomerativeClustering):
    def _fit(self, X):
        super()._fit(X)
        calls["patched"] += 1
        calls["core"] += self._is_ours()
        return self


Counted.__name__ = "AgglomerativeClustering"


def pytest_configure():
    sklearn.cluster.AgglomerativeClustering = Counted  # before the tests import it


def pytest_terminal_summary(terminalreporter):
    terminalreporter.write_line(f"calls: {calls['patched']} patched, {calls['core']} core")
