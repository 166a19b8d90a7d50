"""Run an event: all processes decide together what is kept and regrown, then it is enforced."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..distributed import agreed, check_alike, digest, rank_and_size, shared, together
from ..graph import AtomMask
from ..modules.sharded import is_part, is_sharded
from ..modules.wrappers import named_parameters
from .decide import GroupDecision, decide
from .finite import check_finite
from .history import Event
from .live import Live


def run_event(live: Live, epoch: int, final: bool) -> None:
    """Run the event after `epoch` (REPrune, Algorithm 2); a `final` one regrows nothing.

    Raises `ValueError` on all processes if one of them finds NaN, an outside change, or another state than
    the others have; nothing is changed then.
    """
    if is_sharded(live.model):
        with together("step"):
            _run_event(live, epoch, final)
    else:
        _run_event(live, epoch, final)


def _run_event(live: Live, epoch: int, final: bool) -> None:
    start = time.perf_counter()
    check_alike(shared(lambda: _ready(live, epoch, final)))
    graph = live.graph
    share = 0.0 if final else live.schedule.share(epoch)
    source = live.structure.source(live.model, live.store.full, live.tracked.pieces)
    found = decide(graph, source, live.alive, live.settings, len(live.history), share)
    kept = graph.everything()
    for group in graph.groups:
        kept[group.atoms] = False
        kept[found[group.name].kept] = True
    kept = graph.traced.filled(kept)
    grown = kept.copy()
    for result in found.values():
        grown[result.regrown] = True
    agreed(lambda: _prepared(live, grown, final))()
    live.coverage = {name: f.covered / f.clusters if f.clusters else 1.0 for name, f in found.items()}
    live.history.add(_record(live, epoch, found, kept, grown, time.perf_counter() - start))
    live.record_plan()


def _ready(live: Live, epoch: int, final: bool) -> dict[str, str]:
    """Check everything and store the current values; return what all processes must share."""
    live.check()
    check_finite(live.tracked, live.odd)
    live.mode.check_values(live.tracked, live.layout())
    live.absorb()
    if rank_and_size()[1] == 1:
        return {}
    alike: dict[str, Any] = {"epoch": epoch, "event": len(live.history), "final": final}
    alike |= {"mode": live.asked, **live.record()}
    parameters = named_parameters(live.model).items()
    return {
        **{name: repr(value) for name, value in alike.items()},
        "set of channels": digest(torch.from_numpy(live.alive)),
        **{f"parameter {name}": f"{tuple(p.shape)} of digest {_digest(p)}" for name, p in parameters},
    }


def _digest(parameter: Tensor) -> str:
    """Return what is the same on all processes; of a sharded parameter they have different parts."""
    return "its parts" if is_part(parameter) else digest(parameter)


def _prepared(live: Live, alive: AtomMask, final: bool) -> Callable[[], None]:
    """Return a function that moves to the atoms `alive`, certified first if they are `final`."""
    if final:
        live.structure.certify(live.full_copy(), alive)
    return live.moving(alive)


def _record(
    live: Live,
    epoch: int,
    found: Mapping[str, GroupDecision],
    kept: AtomMask,
    grown: AtomMask,
    seconds: float,
) -> Event:
    flops = live.graph.traced.flops
    total = sum(group.atoms.size for group in live.graph.groups)
    clusters = sum(f.clusters for f in found.values())
    return Event(
        epoch=epoch,
        sparsity=1 - sum(f.kept.size for f in found.values()) / total,
        kept={name: f.kept.size for name, f in found.items()},
        regrown={name: f.regrown.size for name, f in found.items()},
        clusters={name: f.clusters for name, f in found.items() if f.clusters},
        coverage=sum(f.covered for f in found.values()) / clusters if clusters else 1.0,
        flops=flops.at(kept.astype(np.float64)) / flops.full,
        flops_regrown=flops.at(grown.astype(np.float64)) / flops.full,
        seconds=seconds,
    )
