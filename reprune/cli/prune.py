"""Run `reprune prune MODEL`: prune a network and write the smaller one to a file."""

import argparse
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

import reprune

from ..compensation.images import Images
from ..compensation.report import CompensationReport
from ..graph import ModelTrace
from ..modules.copying import whole_copy
from ..plan import PruningPlan
from . import calibration, network, several, values, weights
from . import console as tables
from .errors import UserError
from .from_transformers import has_weights
from .outputs import check_output
from .progress import Stages
from .show import plan_as_dict

FLOPS_LEFT = 0.5  # without any target
EXAMPLES = """examples:
  reprune prune resnet50 --weights resnet50.pth --flops 0.5 -o small.safetensors
  reprune prune timm/mobilenetv4_conv_small --params 0.7 -o small.safetensors
  reprune prune mypackage.networks:build --sparsity 0.3 --scope all -o small.safetensors
  reprune prune path/to/bert --flops 0.5 --layers linear --rule uniform -o small.safetensors
  reprune prune vgg16_bn --latency 0.6 --batch 16 --channels-last --round-to 8 -o small.safetensors
  reprune prune resnet50 --weights resnet50.pth --flops 0.3,0.5,0.7 --measure
  reprune prune resnet50 --weights resnet50.pth --flops 0.7 --calibrate photographs/ -o small.safetensors
  reprune prune resnet50 --size-mb 50 --ignore layer1 --min-keep "layer4.*=64" -o small.safetensors
"""


def add(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", common: argparse.ArgumentParser
) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "prune",
        parents=[common],
        help="prune a network and write the small one",
        description="Prune a network and write the small one, plan included; reprune.load() reads it.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="a network of torchvision (resnet50), one of timm (timm/resnet50), one of transformers (the "
        "folder that save_pretrained wrote), or package.module:function, a function that returns one",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FILE",
        help="file for the small network (/dev/null: none, for a dry run); not with several targets",
    )
    parser.add_argument(
        "--weights",
        type=Path,
        metavar="FILE",
        help="trained weights: safetensors, an index of several such files (model.safetensors.index.json), "
        "or what torch.save(state_dict) wrote; safetensors are read where they are needed, and the small "
        "network is written a tensor at a time, so that neither has to fit in memory",
    )
    target = parser.add_mutually_exclusive_group()
    target.add_argument(
        "--flops",
        metavar="F",
        help="fraction of the FLOPs to keep (default: 0.5); several values of this or another target, as "
        "0.3,0.5,0.7, are compared in a table",
    )
    target.add_argument("--params", metavar="P", help="fraction of the parameters to keep")
    target.add_argument(
        "--latency",
        metavar="L",
        help="fraction of the forward pass's time to keep, measured here (see --batch, --channels-last)",
    )
    target.add_argument(
        "--size-mb", metavar="MB", help="maximum size of parameters and buffers, in megabytes"
    )
    target.add_argument("--sparsity", metavar="S", help="fraction of the channels to remove")
    parser.add_argument(
        "--rule",
        choices=("auto", "bn", "uniform", "error"),
        default="auto",
        help="how many channels each layer loses: bn, by the gammas of BatchNorm; uniform, the same "
        "fraction everywhere; error, by what the layers behind lose on the images of --calibrate; auto "
        "(default), error where there are images, bn where gammas differ",
    )
    parser.add_argument(
        "--criterion",
        choices=("reprune", "covariance"),
        default="reprune",
        help="which channels each layer keeps: reprune (default), those that cover most clusters of kernels; "
        "covariance, those that explain most of the others on the images of --calibrate",
    )
    parser.add_argument(
        "--scope",
        choices=("internal", "all"),
        default="internal",
        help="internal (default): channels that are in no addition; all: also those of residual streams",
    )
    parser.add_argument(
        "--layers",
        choices=("conv", "linear", "all"),
        default="conv",
        help="which layers to prune: convolutions (default), Linear layers, or both",
    )
    parser.add_argument(
        "--round-to",
        type=values.positive,
        default=1,
        metavar="N",
        help="keep multiples of N channels (default: 1)",
    )
    parser.add_argument(
        "--min-keep",
        type=values.fewest,
        action="append",
        default=[],
        metavar="N|LAYER=N",
        help="minimum of channels, of all layers or of a name or pattern (default: 1); may be repeated",
    )
    parser.add_argument(
        "--ignore",
        action="append",
        default=[],
        metavar="LAYER",
        help="layers not to prune: a name, the name of a module around them, or a pattern; may be repeated",
    )
    parser.add_argument(
        "--seed",
        type=values.seed,
        default=0,
        metavar="N",
        help="seed of ties, and of the weights of an untrained network",
    )
    parser.add_argument(
        "--ties", choices=("random", "norm"), default="random", help="how ties between filters are broken"
    )
    parser.add_argument("--backend", choices=("auto", "reference", "cpp", "triton"), default="auto")
    parser.add_argument(
        "--input-size",
        type=values.size,
        metavar="C,H,W",
        help="shape of one input, without the batch (default: by the model's name, or 3,224,224)",
    )
    parser.add_argument(
        "--inputs",
        metavar="FUNCTION",
        help="package.module:function that returns the inputs of one pass, where these are not one image: a "
        "tensor (of token ids, for example), a tuple or a dictionary of arguments",
    )
    parser.add_argument(
        "--batch", type=values.positive, default=1, metavar="N", help="batch size of --latency (default: 1)"
    )
    parser.add_argument("--channels-last", action="store_true", help="memory format of --latency")
    parser.add_argument(
        "--measure",
        action="store_true",
        help="with several targets: time the networks beside the full one",
    )
    parser.add_argument(
        "--calibrate",
        metavar="DIR|FUNCTION",
        help="fit the small network to the full one, without training, on a folder of images (256 of them, "
        "prepared as torchvision does) or on the batches that package.module:function returns; --rule error "
        "and --criterion covariance look at them too",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Build the model, load its weights, plan, prune, save and report."""
    compared = several.asked(arguments)
    shares: list[float] = []
    for name, read in {
        **dict.fromkeys(("flops", "params", "latency", "sparsity"), values.share),
        "size_mb": values.megabytes,
    }.items():
        if (text := getattr(arguments, name)) is not None:
            read_all = [read(f"--{name.replace('_', '-')}", part) for part in text.split(",")]
            setattr(arguments, name, read_all[0])
            shares = read_all
    if compared is not None:
        several.check(arguments, compared)
        if arguments.calibrate is not None:
            raise UserError("--calibrate: expected one target, as what is compared is not compensated")
    elif arguments.output is None:
        raise UserError("--output: expected a file for the small network (-o FILE), but for several targets")
    for option, value in (("rule", "error"), ("criterion", "covariance")):
        if getattr(arguments, option) == value and arguments.calibrate is None:
            more = "" if compared is None else "; expected one target then"
            raise UserError(f"--{option} {value}: expected images, --calibrate DIR or FUNCTION{more}")
    if arguments.inputs is not None:
        for option in ("input_size", "channels_last"):
            if getattr(arguments, option):
                raise UserError(f"--{option.replace('_', '-')}: expected none of it with --inputs")
    output = Path("/dev/null") if arguments.output is None else arguments.output
    given = [] if arguments.weights is None else [arguments.weights]
    if given:
        weights.check(arguments.weights)
        given = weights.files(arguments.weights)
    for file in given:
        check_output("--output", output, {"--weights": file})
    start = time.perf_counter()
    with Stages() as stages:
        model, inputs = network.ready(arguments, output, stages)
        if arguments.channels_last:
            layout = torch.channels_last_3d if inputs.dim() == 5 else torch.channels_last
            model, inputs = model.to(memory_format=layout), inputs.to(memory_format=layout)
        images = None
        if arguments.calibrate is not None:
            stages("images")
            size = tuple(inputs.shape[1:]) if isinstance(inputs, torch.Tensor) else ()
            batches = calibration.source(arguments.calibrate, arguments.model, size)
            images = calibration.read(batches, model)
        bytes_before = several.tensor_bytes(model)
        if compared is not None:
            rows = several.run(
                model,
                inputs,
                arguments,
                compared,
                shares,
                lambda one, traced: _plan(model, traced, one, None, stages)[0],
                stages,
            )
        else:
            traced = reprune.trace(model, inputs, progress=stages)
            plan, rule, reason = _plan(model, traced, arguments, images, stages)
            fit = None
            if images is None:
                stages("save")
                reprune.save(model, output, plan)
            else:
                small = whole_copy(model)
                reprune.apply(plan, small)
                fit = calibration.compensated(model, small, plan, images, stages)
                stages("save")
                reprune.save(small, output)
            bytes_after = output.stat().st_size if output.is_file() else several.tensor_bytes(model, plan)
    if compared is not None:
        several.show(arguments, compared, rows, time.perf_counter() - start)
        return
    result = Result(plan, rule, reason, bytes_before, bytes_after, time.perf_counter() - start, fit)
    _print_json(arguments, result) if arguments.json else _print_tables(arguments, result)


@dataclass(frozen=True)
class Result:
    """What a run produced, beside the file."""

    plan: PruningPlan
    rule: str
    reason: str  # why this rule
    bytes_before: int  # of the tensors of the full network
    bytes_after: int  # of the file, or what would be in it
    seconds: float
    fit: CompensationReport | None  # of --calibrate


def _plan(
    model: nn.Module,
    traced: ModelTrace,
    arguments: argparse.Namespace,
    images: Images | None,
    stages: Stages,
) -> tuple[PruningPlan, str, str]:
    """Return the plan, the rule that made it, and why that rule was used."""
    names = ("sparsity", "flops", "params", "latency", "size_mb")
    targets = {name: getattr(arguments, name) for name in names}
    if all(value is None for value in targets.values()):
        targets["flops"] = FLOPS_LEFT

    def plan_by(rule: str) -> PruningPlan:
        return reprune.make_plan(
            model,
            traced,
            **targets,
            rule=rule,
            scope=arguments.scope,
            layers=arguments.layers,
            round_to=arguments.round_to,
            min_keep=dict(arguments.min_keep) or 1,
            ignore=arguments.ignore,
            seed=arguments.seed,
            ties=arguments.ties,
            backend=arguments.backend,
            criterion=arguments.criterion,
            calibrate=images if rule == "error" or arguments.criterion == "covariance" else None,
            progress=stages,
        )

    if arguments.rule != "auto":
        return plan_by(arguments.rule), arguments.rule, "as asked for"
    if images is not None:
        try:
            return plan_by("error"), "error", "the images tell what each layer loses"
        except ValueError as error:
            if "rule='uniform'" not in str(error):
                raise
    reason = why_not_bn(model)
    if reason is None:
        try:
            return plan_by("bn"), "bn", "BatchNorm tells channels apart"
        except ValueError as error:
            if "rule='uniform'" not in str(error):
                raise
            reason = "BatchNorm does not tell apart the channels that may go"
    return plan_by("uniform"), "uniform", reason


def why_not_bn(model: nn.Module) -> str | None:
    """Return what the gammas say against the rule "bn", or None if nothing does.

    `make_plan` would say so too, after it has traced the network.
    """
    gammas = [module.weight.detach().abs().flatten() for module in model.modules() if _has_gamma(module)]
    if not gammas:
        return "the network has no BatchNorm"
    every = torch.cat(gammas)
    if bool((every == every[0]).all()):
        return "all BatchNorm gammas are equal, as in an untrained network"
    return None


def _has_gamma(module: nn.Module) -> TypeGuard[_BatchNorm]:
    return isinstance(module, _BatchNorm) and module.weight is not None


def _print_json(arguments: argparse.Namespace, result: Result) -> None:
    facts: dict[str, Any] = {
        "model": arguments.model,
        "weights": None if arguments.weights is None else str(arguments.weights),
        "file": str(arguments.output),
        "bytes": {"before": result.bytes_before, "after": result.bytes_after},
        "rule": result.rule,
        "rule_reason": result.reason,
        "criterion": arguments.criterion,
        "scope": arguments.scope,
        "seed": arguments.seed,
        "seconds": round(result.seconds, 3),
    }
    if result.fit is not None:
        facts["calibration"] = calibration.as_dict(result.fit)
    json.dump(facts | plan_as_dict(result.plan), sys.stdout, indent=2)
    print()


def _print_tables(arguments: argparse.Namespace, result: Result) -> None:
    plan = result.plan
    tables.layers(plan)
    tables.skipped(plan)
    if result.fit is not None:
        calibration.show(result.fit)
    rows = [
        tables.before_after("FLOPs", *plan.flops, tables.count),
        tables.before_after("parameters", *plan.params, tables.count),
        tables.before_after("file size", result.bytes_before, result.bytes_after, tables.memory),
    ]
    tables.show(f"{arguments.model}, {result.seconds:.1f} s", ("", "before", "after", "left"), rows)
    tables.say(f"Channels per layer: rule {result.rule} ({result.reason}).")
    for note in plan.notes:
        tables.say(f"Note: {note}.")
    if arguments.weights is None and ":" not in arguments.model and not has_weights(arguments.model):
        tables.say("The weights were random; trained ones are given with --weights FILE.")
    tables.say(
        f"Written: {arguments.output}. Load it: reprune.load({str(arguments.output)!r}, <the full network>)"
    )
