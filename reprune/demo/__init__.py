"""Run the demo: train a small network, train it again while pruning half of its FLOPs, measure both.

`reprune.demo.network.build()` builds the network, `reprune.demo.run(out)` runs everything, and `reprune demo`
shows it on the command line. It needs the packages of `pip install "reprune[demo]"`.
"""

from .end_to_end import run
from .report import OneShot, Report, Side

__all__ = ["OneShot", "Report", "Side", "run"]
