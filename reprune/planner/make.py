"""Make a plan for a whole model, and prune a copy by it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from ..aliases import Progress
from ..compensation.compensate import compensate
from ..compensation.images import collected
from ..modules.copying import whole_copy
from ..modules.sharded import refuse_sharded
from ..modules.wrappers import unwrap
from ..plan import PruningPlan
from ..surgery import apply
from ..targets import Select, checked
from .decide import decided_plan


def make_plan(
    model: nn.Module,
    example_inputs: Any,
    *,
    sparsity: float | None = None,
    flops: float | None = None,
    params: float | None = None,
    latency: float | None = None,
    size_mb: float | None = None,
    keep: Mapping[str, int] | None = None,
    rule: str = "bn",
    scope: str = "internal",
    layers: str = "conv",
    round_to: int = 1,
    min_keep: int | Mapping[str, int] = 1,
    ignore: Sequence[str] = (),
    time_limit: float | None = None,
    seed: int = 0,
    ties: str = "random",
    backend: str = "auto",
    select: Select | None = None,
    criterion: str = "reprune",
    calibrate: Any = None,
    progress: Progress | None = None,
) -> PruningPlan:
    """Decide which channels of `model` to keep, by REPrune (Park et al., AAAI 2024).

    Nothing is changed: :func:`apply` applies the plan, :func:`prune` does both on a copy. Exactly one of
    `sparsity`, `flops`, `params`, `latency`, `size_mb` and `keep` is the target.

    Args:
        model: Any eager model. It is run, in evaluation and training mode, and left as it was. Of a model in
            torch.compile, DistributedDataParallel and the like it is the module inside, by its own names. One
            that `fully_shard` has sharded is planned by all processes together.
        example_inputs: What the model takes, on its device: a tensor, a tuple of positional or a dictionary
            of keyword arguments. Or what :func:`trace` returned for it.
        sparsity: Fraction of the channels to remove, over all layers together (Eq. 8), in (0, 1).
        flops: Maximum fraction of the FLOPs to retain, in (0, 1). It is met by bisection on the sparsity.
        params: Maximum fraction of the parameters to retain, in (0, 1).
        latency: Fraction of the time of a forward pass to retain, in (0, 1), on the device and with the batch
            size, threads and memory format of `model` and `example_inputs`. It is met by a search over
            timings of real networks, within 5 %, or below that where `round_to` leaves gaps, in about two
            minutes at most. `plan.notes` has the measured fraction, its quartiles, and a warning where they
            scatter so much that they are not to be trusted.
        size_mb: Maximum size of parameters and buffers, as in a file, in megabytes of 10^6 bytes.
        keep: `{layer: output channels to keep}`; the other layers keep all of theirs.
        rule: How the count of each layer is found: `"bn"` by the BatchNorm scales of all layers (Eq. 8-9),
            `"uniform"` by the same fraction of each, `"error"` by what the outputs of the network lose, on
            images (`calibrate`), for each FLOP that is saved, or parameter if these are limited.
        scope: `"internal"` prunes groups of channels that meet in no addition, `"all"` residual streams too.
        layers: Which layers' output channels can be pruned: `"conv"`, convolutions (the paper); `"linear"`,
            Linear layers, where a kernel is one number, such as a transformer's: hidden dimensions and whole
            heads; `"all"`, both. A group with several producing layers is selected as one.
        round_to: Layers keep a multiple of this many channels, or all.
        min_keep: Minimum number of channels of a layer, or `{layer: minimum}`.
        ignore: Layers that are not pruned, nor what is coupled to them. Here and in `min_keep` a layer is
            given by its name, that of a module around it, or a pattern (`"layer1.*.conv2"`).
        time_limit: Seconds after which tracing gives up; None for no limit.
        seed: Any integer; it fixes how ties between filters are broken, see :func:`max_coverage`.
        ties: `"random"`, uniform among tied filters (the paper), or `"norm"`, the larger L2 norm.
        backend: Backend that runs the clustering: `"auto"`, `"reference"`, `"cpp"` or `"triton"`.
        select: Another criterion in the place of REPrune's: a function that is given each group of channels
            as a `LayerProblem` (`name`; `tables`, numpy arrays `[I, O, d]`; `keep`) and returns the `keep`
            channels of 0..O-1 to keep. Nothing is clustered then.
        criterion: `"reprune"`, or `"covariance"`: of each layer those channels are kept that explain most of
            the others by least squares, as the layers behind it weigh them on images (`calibrate`).
        calibrate: Images, without labels, for the rule `"error"` or the criterion `"covariance"`, which run
            the model on them in evaluation mode: some 256 of those that it was trained on, given as
            :func:`compensate` takes them. These two depend on the arithmetic of the model, and so on the
            device. Layers whose channels go to no convolution or Linear layer that can be seen are pruned by
            REPrune and lose the same fraction each; `plan.notes` names them.
        progress: A function that is called as `progress(stage, done, total)`, with the stage "trace",
            "calibrate", "measure" (for `latency`), "select" or "certify".

    Returns:
        The plan. `print(plan)` shows a row per layer.

    Raises:
        ValueError: A target is missing, doubled, out of range or out of reach (the message says what is
            within); `keep`, `min_keep` or `ignore` name no layer; no layer of the model can be pruned;
            weights are NaN or infinite; `rule="bn"` without BatchNorms, or with all scales equal; images are
            missing, are not used, or the model fails on them.
        TypeError: An argument has a wrong type.
        TimeoutError: Tracing took longer than `time_limit`, or no network fast enough for `latency` was
            found in time.
        BackendUnavailable: `backend` cannot run here.

    Examples:
        >>> import torch, reprune
        >>> from torch import nn
        >>> model = nn.Sequential(
        ...     nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 36, 10)
        ... )
        >>> images = torch.randn(2, 3, 8, 8)
        >>> plan = reprune.make_plan(model, images, sparsity=0.5, rule="uniform")
        >>> len(plan.keep["0"]), plan.channels["0"]
        (8, 16)
        >>> reprune.apply(plan, model)
        >>> model[0]
        Conv2d(3, 8, kernel_size=(3, 3), stride=(1, 1))

        Filters by their L2 norm, instead of by the clusters that they cover:

        >>> def largest(problem):
        ...     squares = sum((table**2).sum(axis=(0, 2)) for table in problem.tables)
        ...     return squares.argsort()[-problem.keep :]
        >>> reprune.make_plan(model, images, keep={"0": 3}, select=largest).settings["select"]
        'largest'
    """
    settings = checked(
        sparsity=sparsity,
        flops=flops,
        params=params,
        latency=latency,
        size_mb=size_mb,
        keep=keep,
        rule=rule,
        scope=scope,
        layers=layers,
        round_to=round_to,
        min_keep=min_keep,
        ignore=ignore,
        seed=seed,
        ties=ties,
        backend=backend,
        select=select,
        criterion=criterion,
    )
    if calibrate is not None:
        refuse_sharded(model, "each process alone cannot run it on images (calibrate)")
    if calibrate is not None and not settings.by_images:
        raise ValueError(
            "calibrate: expected no images, as neither rule='error' nor criterion='covariance' looks at them "
            "here; to fit the pruned network to the dense one on them, give them to prune or compensate"
        )
    images = None if calibrate is None else collected(calibrate, unwrap(model)[0], "calibrate")
    return decided_plan(model, example_inputs, settings, images, time_limit, progress)


def prune(
    model: nn.Module,
    example_inputs: Any,
    *,
    sparsity: float | None = None,
    flops: float | None = None,
    params: float | None = None,
    latency: float | None = None,
    size_mb: float | None = None,
    keep: Mapping[str, int] | None = None,
    rule: str = "bn",
    scope: str = "internal",
    layers: str = "conv",
    round_to: int = 1,
    min_keep: int | Mapping[str, int] = 1,
    ignore: Sequence[str] = (),
    time_limit: float | None = None,
    seed: int = 0,
    ties: str = "random",
    backend: str = "auto",
    select: Select | None = None,
    criterion: str = "reprune",
    progress: Progress | None = None,
    calibrate: Any = None,
) -> tuple[nn.Module, PruningPlan]:
    """Return a smaller copy of `model`, and the plan.

    This is :func:`make_plan`, which describes the other arguments and the errors, followed by :func:`apply`
    to a copy. `model` is left as it was, and the copy has none of the wrappers that were around it.

    Args:
        calibrate: Images, without labels, on which the copy is fitted to `model` by :func:`compensate`, which
            describes them: some 256 of those that `model` was trained on. The rule `"error"` and the
            criterion `"covariance"` look at them too. Default: none, and the copy has the values of the
            channels that it keeps, which is of use only if it is trained further.

    Returns:
        The smaller network and the plan that made it.

    Examples:
        >>> import torch, reprune
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 8, 3))
        >>> small, plan = reprune.prune(model, torch.randn(2, 3, 8, 8), sparsity=0.5, rule="uniform")
        >>> small[0].out_channels, small[3].in_channels
        (8, 8)

        Ready to use, without training:

        >>> images = torch.randn(64, 3, 8, 8)
        >>> small, plan = reprune.prune(model, images[:2], keep={"0": 8}, calibrate=images)
    """
    settings = checked(
        sparsity=sparsity,
        flops=flops,
        params=params,
        latency=latency,
        size_mb=size_mb,
        keep=keep,
        rule=rule,
        scope=scope,
        layers=layers,
        round_to=round_to,
        min_keep=min_keep,
        ignore=ignore,
        seed=seed,
        ties=ties,
        backend=backend,
        select=select,
        criterion=criterion,
    )
    refuse_sharded(model, "make_plan takes it, and reprune.fsdp.apply makes a smaller one")
    found = None if calibrate is None else collected(calibrate, unwrap(model)[0], "calibrate")
    plan = decided_plan(model, example_inputs, settings, found, time_limit, progress)
    small = whole_copy(unwrap(model)[0])
    apply(plan, small)
    if found is not None:
        compensate(model, small, plan, found, progress=progress)
    return small, plan
