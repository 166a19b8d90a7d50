"""The tests: a file for each concept, `test_linkage.py` for `reprune/clustering/linkage.py` and so on.

What is no test lies in three folders, each with a line per file in its docstring:

helpers     what tests import
programs    what a test runs in a process of its own
tools       what people run: longer checks, other builds, other machines

pytest puts the checkout last on the path (`--import-mode=append`); `python -m tests.tools.fuzz` is run in the
checkout. Either way it is `from tests.helpers.networks import small_resnet`.
"""
