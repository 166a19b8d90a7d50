"""Build the network that a command is about, with its weights, and find inputs that it takes."""

import argparse
import contextlib
from pathlib import Path
from typing import Any

from torch import nn

from . import models, weights
from .outputs import check_output
from .progress import Stages


def ready(arguments: argparse.Namespace, output: Path, stages: Stages) -> tuple[nn.Module, Any]:
    """Return the network with its weights, and inputs that it takes."""

    def made(empty: bool) -> tuple[nn.Module, Any]:
        stages("build")
        model = models.build(arguments.model, arguments.seed, empty)
        check_output("--output", output, {"MODEL": models.source(arguments.model)})
        if arguments.weights is not None:
            stages("weights")
            weights.load(model, arguments.weights)
        stages("probe")
        inputs: Any = None
        if arguments.inputs is None:
            inputs = models.example(arguments.model, arguments.input_size, arguments.batch, model)
        else:
            inputs = models.inputs_from(arguments.inputs)
        models.check_input(model, inputs, arguments.inputs)
        return model, inputs

    if arguments.weights is not None and weights.in_parts(arguments.weights):
        with contextlib.suppress(Exception):  # such as code that reads values while the network is built
            return made(empty=True)  # whatever else was wrong is told by the second try
    return made(empty=False)
