"""Run the command line: `reprune prune | show | demo | bench`, one file per command."""

import argparse
import sys
import traceback
from collections.abc import Sequence

import reprune

from ..bench import WrongAnswer
from . import bench, demo, prune, show
from .errors import UserError

USER_ERRORS = (UserError, ValueError, TypeError, OSError, ImportError, reprune.BackendUnavailable)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command in `argv` (default: that of the process).

    Returns the exit status: 0, 1 for a wrong answer in a benchmark, 2 for a user's error, 130 for Ctrl-C.
    """
    arguments = parser().parse_args(argv)
    try:
        arguments.run(arguments)
    except KeyboardInterrupt:
        print("reprune: interrupted", file=sys.stderr)
        return 130
    except WrongAnswer as error:
        print(f"reprune: wrong answer, so no figures: {error}", file=sys.stderr)
        return 1
    except USER_ERRORS as error:
        if arguments.traceback:
            traceback.print_exc()
        print(f"reprune: error: {error}", file=sys.stderr)
        return 2
    return 0


def parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    root = argparse.ArgumentParser(
        prog="reprune", description="Prune the channels of convolutional networks."
    )
    root.add_argument("--version", action="version", version=f"reprune {reprune.__version__}")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--json", action="store_true", help="print one JSON object on stdout and nothing else there"
    )
    common.add_argument("--traceback", action="store_true", help="show where an error came from")
    commands = root.add_subparsers(metavar="COMMAND", required=True)
    for command in (prune, show, demo, bench):
        command.add(commands, common)
    return root
