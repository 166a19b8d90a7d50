"""``python -m reprune.cli``, for where the script ``reprune`` is not on the path."""

import sys

from . import main

sys.exit(main())
