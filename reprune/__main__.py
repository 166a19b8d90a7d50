"""Run the command line as `python -m reprune`, where the script `reprune` is not on the path."""

import sys

from .cli import main

sys.exit(main())
