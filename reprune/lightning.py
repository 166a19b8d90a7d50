"""Prune while training under Lightning, by a callback (`pip install "reprune[lightning]"`)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import StochasticWeightAveraging
from torch import nn

from .modules.wrappers import AVERAGES, unwrap
from .pruner import Pruner
from .pruner.full_size import FullSize, full_size_state
from .targets import Select


class REPrune(Callback):
    """Prunes the LightningModule while the Trainer trains it.

    An example of its use::

        trainer = Trainer(max_epochs=200, callbacks=[REPrune(sparsity=0.5, interval=2, until=150)])
        trainer.fit(module, data)

    The arguments are those of :class:`reprune.Pruner`; `example_inputs` is the module's
    `example_input_array` unless given. On several devices use `mode="mask"`. `callback.pruner` has
    the history and the plan.

    An event happens after the last batch of its epoch and before the validation, so the validated network is
    the one that is saved and trained on. After the last epoch the module is small.

    From the start of `fit` the module's `state_dict()` is at full size, whatever the size of its tensors,
    with zeros for channels that are gone. So any checkpoint loads into a freshly built module, which then
    computes what was validated, and into a pruned one, which takes the sizes of the network in the checkpoint
    (`trainer.test(ckpt_path="best")`). `trainer.fit(module, ckpt_path=...)` resumes bit-exactly.

    A second `fit` of the same module continues where the first ended. Copies of the module that other
    callbacks hold, such as those of `EMAWeightAveraging` and `StochasticWeightAveraging`, are pruned too.

    The module needs one optimizer. Raises `ValueError` when training starts if it does not fit.
    """

    def __init__(
        self,
        example_inputs: Any = None,
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
        self._saved: dict[str, Any] | None = None
        self._full_size: FullSize | None = None
        self._offset = 0
        """The trainer's epoch when the pruner's was 0."""
        self.pruner: Pruner | None = None
        """The pruner, once training has started."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Let modules load a checkpoint at full size when fitting starts."""
        if self._full_size is not None:
            self._full_size.grow = stage == "fit"

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Build the pruner, at the point of a checkpoint if there is one, or continue the present one."""
        if len(trainer.optimizers) != 1:
            raise ValueError(f"module: expected one optimizer, it has {len(trainer.optimizers)}")
        copies = _averages(trainer)
        with _without_trainer(pl_module):
            if self._saved is None and self.pruner is not None and self.pruner.model is pl_module:
                self.pruner.live.continue_with(trainer.optimizers[0], copies)
                self._offset = trainer.current_epoch - self.pruner.epoch
            else:
                self.pruner = self._built(trainer, pl_module, copies)
        assert self._full_size is not None
        self._full_size.grow = False
        for module in (pl_module, *copies):
            self._full_size.attach(module)
        self._check_end(trainer)

    def _built(self, trainer: Trainer, pl_module: LightningModule, copies: list[nn.Module]) -> Pruner:
        example = pl_module.example_input_array if self._example is None else self._example
        if example is None:
            raise ValueError(
                "example_inputs: none given, and the module has no example_input_array; give one"
            )
        if self._settings["mode"] == "shrink" and trainer.world_size > 1:
            raise ValueError("mode: 'shrink' works on one device only; use mode='mask' on several")
        example = torch.utils._pytree.tree_map_only(torch.Tensor, lambda x: x.to(pl_module.device), example)
        pruner = Pruner(pl_module, trainer.optimizers[0], example, copies=copies, **self._settings)
        self._full_size = FullSize(pruner.live)
        self._offset = trainer.current_epoch
        if self._saved is not None:
            pruner.load_state_dict(self._saved["pruner"])
            self._offset = self._saved["offset"]
            self._saved = None
        return pruner

    def _check_end(self, trainer: Any) -> None:
        assert self.pruner is not None
        last, most = self._offset + self.pruner.schedule.last, trainer.max_epochs
        if most is None or most == -1 or self.pruner.finished or trainer.fast_dev_run:
            return
        if most < last:
            raise ValueError(
                f"until: the last event comes after epoch {last}, and the trainer stops after {most}"
            )

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Note the end of an epoch before it is validated."""
        if trainer.is_last_batch:
            self._step(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the end of an epoch that had no last batch."""
        self._step(trainer, pl_module)

    def _step(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert self.pruner is not None
        with _without_trainer(pl_module):
            while self.pruner.epoch < trainer.current_epoch + 1 - self._offset:
                self.pruner.step()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make the module small, unless training was stopped before the last event."""
        assert self.pruner is not None
        if self.pruner.epoch >= self.pruner.schedule.last:
            with _without_trainer(pl_module):
                self.pruner.finalize()

    def state_dict(self) -> dict[str, Any]:
        """Return the state that goes into checkpoints."""
        return {} if self.pruner is None else {"pruner": self.pruner.state_dict(), "offset": self._offset}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the state from a checkpoint until training starts."""
        self._saved = state_dict or None

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Store the optimizer's state at full size, since Lightning restores it first."""
        if self.pruner is not None and checkpoint.get("optimizer_states"):
            states = checkpoint["optimizer_states"]
            checkpoint["optimizer_states"] = [full_size_state(self.pruner.live, states[0]), *states[1:]]


def _averages(trainer: Any) -> list[nn.Module]:
    """Return the averages of the module that other callbacks hold."""
    found = []
    for callback in trainer.callbacks:
        for value in vars(callback).values():
            inner, around = unwrap(value) if isinstance(value, nn.Module) else (None, set())
            if inner and (around & AVERAGES or isinstance(callback, StochasticWeightAveraging)):
                found.append(inner)
    return found


@contextlib.contextmanager
def _without_trainer(module: LightningModule) -> Iterator[None]:
    """Detach the trainer and compiled methods from the module while it is traced.

    The trace copies the module: a trainer must not be copied, and what torch.compile made of its
    methods would still run the module itself.
    """
    trainer, module.trainer = module.trainer, None
    names = ["_compiler_ctx", *(name.removeprefix("original_") for name in module._compiler_ctx or ())]
    compiled = {name: module.__dict__.pop(name) for name in names if name in module.__dict__}
    module._compiler_ctx = None
    try:
        yield
    finally:
        module.trainer = trainer
        module.__dict__.update(compiled)
