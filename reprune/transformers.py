"""Prune while the Trainer of transformers trains, by a callback (`pip install "reprune[transformers]"`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from .pruner import Pruner
from .targets import Select

FILE = "reprune.pt"
"""The pruner's state, in each of the Trainer's checkpoints."""


class REPrune(TrainerCallback):  # type: ignore[misc]
    """Prunes the network while the Trainer trains it.

    An example of its use::

        ids = {"input_ids": torch.ones(1, 16, dtype=torch.long), "use_cache": False}
        callback = REPrune(ids, sparsity=0.3, interval=1, until=6, layers="linear", rule="uniform")
        Trainer(model, arguments, train_dataset=data, callbacks=[callback]).train()

    `example_inputs` are arguments of the network for one pass, by name; the others are those of
    :class:`reprune.Pruner`. `callback.pruner` has the history and the plan. An event happens at the end of
    its epoch, before the Trainer evaluates and saves. After the last epoch the network is small.

    With `mode="mask"` the network keeps its size until then: it is for several devices, and checkpoints can
    be resumed (`train(resume_from_checkpoint=...)`), as the pruner's state is saved in each. In the mode
    "shrink" the Trainer could not load its checkpoints, so it must neither resume nor load the best one.

    Keys and values that a network returns for the next token (`use_cache`) are outputs, which keep all their
    heads, so turn that off in `example_inputs` or in `model.config`.

    Raises `ValueError` when training starts if it does not fit.
    """

    def __init__(
        self,
        example_inputs: Any,
        *,
        sparsity: float | None = None,
        flops: float | None = None,
        params: float | None = None,
        interval: int = 2,
        until: int = 180,
        regrow: float = 0.3,
        mode: str = "shrink",
        seed: int = 0,
        ties: str = "random",
        scope: str = "internal",
        rule: str = "bn",
        layers: str = "conv",
        min_keep: int | Mapping[str, int] = 1,
        ignore: Sequence[str] = (),
        round_to: int = 1,
        backend: str = "auto",
        select: Select | None = None,
    ) -> None:
        settings = {name: value for name, value in locals().items() if name not in ("self", "example_inputs")}
        self._example = example_inputs
        self._settings = settings
        self.pruner: Pruner | None = None
        """The pruner, once training has started."""

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        *,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        **others: Any,
    ) -> None:
        """Build the pruner, at the point of a checkpoint if training is resumed."""
        shrinks = self._settings["mode"] == "shrink"
        if shrinks and args.world_size > 1:
            raise ValueError("mode: 'shrink' works on one device only; use mode='mask' on several")
        if shrinks and (state.global_step or args.load_best_model_at_end):
            what = "resume from a checkpoint" if state.global_step else "load the best model at the end"
            raise ValueError(f"mode: with 'shrink' the Trainer cannot {what}; use mode='mask'")
        device = next(model.parameters()).device
        example = torch.utils._pytree.tree_map_only(torch.Tensor, lambda x: x.to(device), self._example)
        pruner = Pruner(model, optimizer, example, **self._settings)
        if state.global_step:
            file = _checkpoint(args, state) / FILE
            if not file.is_file():
                raise ValueError(f"the training is resumed, and there is no state of the pruner in {file}")
            pruner.load_state_dict(torch.load(file, weights_only=True))
        last = pruner.schedule.last
        if not pruner.finished and args.max_steps <= 0 and args.num_train_epochs < last:
            raise ValueError(
                f"until: the last event comes after epoch {last}, and the Trainer stops after "
                f"{args.num_train_epochs:g}"
            )
        self.pruner = pruner

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **others: Any
    ) -> None:
        """Note the end of an epoch before the Trainer evaluates."""
        assert self.pruner is not None
        self.pruner.step()

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **others: Any
    ) -> None:
        """Save the pruner's state in the checkpoint that the Trainer has written."""
        folder = _checkpoint(args, state)
        if self.pruner is not None and args.should_save and folder.is_dir():
            torch.save(self.pruner.state_dict(), folder / FILE)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **others: Any
    ) -> None:
        """Make the network small, unless training was stopped before the last event."""
        assert self.pruner is not None
        if self.pruner.epoch >= self.pruner.schedule.last:
            self.pruner.finalize()


def _checkpoint(args: TrainingArguments, state: TrainerState) -> Path:
    """Return the folder of the checkpoint of this step."""
    return Path(args.output_dir) / f"checkpoint-{state.global_step}"
