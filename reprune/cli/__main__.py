"""``python -m reprune.cli``, for where the script ``reprune`` is not on the path."""

import sys

from reprune.cli import main

sys.exit(main())
