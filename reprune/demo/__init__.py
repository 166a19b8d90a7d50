"""Run the demo: train a small network, train it again while pruning half of its FLOPs, measure both.

`reprune.demo.network.build()` is the network, `reprune.demo.run(out)` the whole road; `reprune demo`
shows it on the command line. Needs the packages of `pip install "reprune[demo]"`.
"""

from .end_to_end import run
from .report import Report, Side

__all__ = ["Report", "Side", "run"]
