"""Run the demo from end to end: train dense, train again while pruning, measure, write."""

import copy
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import nn

import reprune

from ..aliases import Progress
from ..files.atomic import atomic_write, write_text
from ..plan import PruningPlan
from ..pruner import History
from ..timings import KNOWN, UNTRUSTED, busy_note
from . import data, measure, network, pace, train
from .report import OneShot, Report, Side

FLOPS_LEFT = 0.5
ROUND_TO = (
    8  # channels: convolutions are computed in blocks, and a block half full costs as much as a full one
)
PEAK = 0.1  # learning rate
REGROW = 0.3
IMAGES = 256
"""Images that compensation is given."""
REPEATS = {1: 200, 64: 60}  # batch size -> timed runs


def run(out: Path, *, seed: int = 0, quick: bool = False, progress: Progress | None = None) -> Report:
    """Run the demo and write the networks, the plan and a picture of it to the folder `out`.

    `quick` trains two epochs on half of the images, and times less: it is a trial run, not a result.
    `progress` is called with (stage, done, total).

    How much it trains and on how many threads depends on how long a few steps take here.

    Raises:
        TimeoutError: it took longer than `pace.LIMIT` all the same.
    """
    _require("mlxtend", "matplotlib")
    out.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    notes = [busy_note()]
    tell = pace.Deadline(progress if progress is not None else lambda stage, done, total: None)
    digits = data.load(seed)
    torch.manual_seed(seed)
    dense = network.build()
    tell("pace", 0, 0)
    with pace.fastest(_step_of(copy.deepcopy(dense), digits)) as (step, words):
        jobs = pace.QUICK if quick else pace.FULL
        job = step.job(jobs, train.BATCH)
        if job != jobs[0]:
            words += f" Made smaller, because a step takes {1e3 * step.seconds:.0f} ms here."
        report = _run(out, dense, digits, job, seed, quick, tell)
    return replace(
        report,
        seconds=time.perf_counter() - start,
        notes=tuple(note for note in (*notes, words.strip(), *report.notes) if note),
    )


def _step_of(model: nn.Module, digits: data.Digits) -> Callable[[], None]:
    """Return a function that runs one training step, for timing."""
    optimizer = train.optimizer_for(model)
    batch = digits.first(train.BATCH)
    return lambda: train.fit(
        model, optimizer, batch, epochs=1, peak=PEAK, seed=0, progress=lambda done, total: None
    )


def _run(
    out: Path, dense: nn.Module, digits: data.Digits, job: pace.Job, seed: int, quick: bool, tell: Progress
) -> Report:
    digits = digits.first(job.images)
    model = copy.deepcopy(dense)
    trained = {}
    trained["dense"] = _fit(dense, train.optimizer_for(dense), digits, job.epochs, seed, None, tell)
    one_shot = _one_shot(dense, digits, seed, tell)
    optimizer = train.optimizer_for(model)
    pruner = reprune.Pruner(
        model,
        optimizer,
        digits.test_images[:1],
        flops=FLOPS_LEFT,
        interval=1,
        until=job.until,
        regrow=REGROW,
        round_to=ROUND_TO,
        seed=seed,
    )
    trained["small"] = _fit(model, optimizer, digits, job.epochs, seed, pruner, tell)
    plan = pruner.finalize()

    files = _write(out, dense, model, plan, pruner.history)
    reloaded = reprune.load(files["small network"], network.build())
    images = digits.test_images[: max(REPEATS)]
    with torch.inference_mode():
        same = torch.equal(reloaded.eval()(images), model.eval()(images))
    latency = _latencies([dense, reloaded], images, quick, tell)
    doubtful = {batch: max(side.off for side in sides) for batch, sides in latency.items()}
    doubtful = {batch: off for batch, off in doubtful.items() if off > KNOWN}
    return Report(
        dense=Side(
            accuracy=train.accuracy(dense, digits.test_images, digits.test_labels),
            epochs=job.epochs,
            images=job.images,
            training_seconds=trained["dense"],
            flops=plan.flops[0],
            parameters=_parameters(dense),
            file_bytes=files["dense network"].stat().st_size,
            latency={batch: sides[0].seconds for batch, sides in latency.items()},
        ),
        small=Side(
            accuracy=train.accuracy(reloaded, digits.test_images, digits.test_labels),
            epochs=job.epochs,
            images=job.images,
            training_seconds=trained["small"],
            flops=plan.flops[1],
            parameters=_parameters(reloaded),
            file_bytes=files["small network"].stat().st_size,
            latency={batch: sides[1].seconds for batch, sides in latency.items()},
        ),
        one_shot=one_shot,
        history=pruner.history,
        same_after_reload=same,
        seconds=0.0,
        files=files,
        doubtful=tuple(doubtful),
        notes=tuple(
            f"Latency at batch {batch} is {UNTRUSTED}: its median is known to {100 * off:.0f} % only."
            for batch, off in doubtful.items()
        ),
    )


def _one_shot(dense: nn.Module, digits: data.Digits, seed: int, tell: Progress) -> OneShot:
    """Prune the dense network once and compensate, without labels or training."""
    small, plan = reprune.prune(dense, digits.test_images[:1], flops=FLOPS_LEFT, round_to=ROUND_TO, seed=seed)
    before = train.accuracy(small, digits.test_images, digits.test_labels)
    report = reprune.compensate(dense, small, plan, digits.train_images[:IMAGES], progress=tell)
    return OneShot(
        flops=plan.flops[1],
        images=report.images,
        seconds=report.seconds,
        accuracy_before=before,
        accuracy=train.accuracy(small, digits.test_images, digits.test_labels),
    )


def _fit(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    digits: data.Digits,
    epochs: int,
    seed: int,
    pruner: reprune.Pruner | None,
    tell: Progress,
) -> float:
    """Train, with the events of `pruner`, and return the seconds."""
    start = time.perf_counter()
    train.fit(
        model,
        optimizer,
        digits,
        epochs=epochs,
        peak=PEAK,
        seed=seed,
        after_epoch=None if pruner is None else pruner.step,
        progress=lambda done, total: tell("train" if pruner is None else "train and prune", done, total),
    )
    return time.perf_counter() - start


def _require(*packages: str) -> None:
    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        raise ModuleNotFoundError(f'the demo needs {" and ".join(missing)}: pip install "reprune[demo]"')


def _write(
    out: Path, dense: nn.Module, small: nn.Module, plan: PruningPlan, history: History
) -> dict[str, Path]:
    from . import picture  # needs matplotlib, which the rest of the package does without

    files = {
        "small network": out / "small.safetensors",
        "plan": out / "plan.json",
        "picture": out / "pruned.png",
        "history of the training": out / "history.png",
        "dense network": out / "dense.safetensors",
    }
    reprune.save(small, files["small network"])
    write_text(files["plan"], plan.to_json())
    picture.draw(plan, files["picture"])
    with atomic_write(files["history of the training"]) as file:
        history.plot().savefig(file, format="png")
    reprune.save(dense, files["dense network"])
    return files


def _parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _latencies(
    models: list[nn.Module], images: torch.Tensor, quick: bool, tell: Progress
) -> dict[int, list[measure.Latency]]:
    return {
        batch: measure.latencies(
            models,
            images[:batch],
            repeats=repeats // 10 if quick else repeats,
            progress=lambda done, total, batch=batch: tell(f"time, batch {batch}", done, total),  # type: ignore[misc]
        )
        for batch, repeats in REPEATS.items()
    }
