"""Pruning while training under Lightning: a callback (``pip install "reprune[lightning]"``)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from .pruner import Pruner
from .pruner.state import widen


class REPrune(Callback):
    """Prunes the LightningModule while the Trainer trains it::

        trainer = Trainer(max_epochs=200, callbacks=[REPrune(sparsity=0.5, interval=2, until=150)])
        trainer.fit(module, data)

    The arguments are those of :class:`reprune.Pruner`; `example_inputs` is the module's
    ``example_input_array`` unless given.  On several devices use ``mode="mask"``.  ``callback.pruner`` has
    the history and the plan.

    Checkpoints go on with ``trainer.fit(module, ckpt_path=...)``: they hold model and optimizer at full
    size, in either mode.  After the last epoch the module is small.

    The module needs one optimizer.  Raises ``ValueError`` when training starts if it does not fit.
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
    ) -> None:
        settings = {name: value for name, value in locals().items() if name not in ("self", "example_inputs")}
        self._example = example_inputs
        self._settings = settings
        self._saved: dict[str, Any] | None = None
        self.pruner: Pruner | None = None
        """The pruner, once training has started."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Build the pruner, at the point of a checkpoint if there is one."""
        example = pl_module.example_input_array if self._example is None else self._example
        if example is None:
            raise ValueError(
                "example_inputs: none given, and the module has no example_input_array; give one"
            )
        if len(trainer.optimizers) != 1:
            raise ValueError(f"module: expected one optimizer, it has {len(trainer.optimizers)}")
        if self._settings["mode"] == "shrink" and trainer.world_size > 1:
            raise ValueError("mode: 'shrink' works on one device only; use mode='mask' on several")
        example = torch.utils._pytree.tree_map_only(torch.Tensor, lambda x: x.to(pl_module.device), example)
        with _without_trainer(pl_module):
            self.pruner = Pruner(pl_module, trainer.optimizers[0], example, **self._settings)
        if trainer.max_epochs is not None and -1 < trainer.max_epochs < self.pruner.schedule.last:
            raise ValueError(
                f"until: the last event comes after epoch {self.pruner.schedule.last}, and the trainer stops "
                f"after {trainer.max_epochs}"
            )
        if self._saved is not None:
            self.pruner.load_state_dict(self._saved)
            self._saved = None

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """One epoch is done."""
        assert self.pruner is not None
        with _without_trainer(pl_module):
            self.pruner.step()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make the module small, unless training was stopped before the last event."""
        assert self.pruner is not None
        if self.pruner.epoch >= self.pruner.schedule.last:
            with _without_trainer(pl_module):
                self.pruner.finalize()

    def state_dict(self) -> dict[str, Any]:
        """Goes into checkpoints."""
        return {} if self.pruner is None else self.pruner.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Comes out of a checkpoint, before training starts."""
        self._saved = state_dict or None

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Let model and optimizer be of full size in the checkpoint, as Lightning restores them first."""
        if self.pruner is not None and not self.pruner.finished and checkpoint.get("optimizer_states"):
            widen(self.pruner, checkpoint["state_dict"], checkpoint["optimizer_states"][0])


@contextlib.contextmanager
def _without_trainer(module: LightningModule) -> Iterator[None]:
    """A module is copied while it is traced, and its trainer must not be."""
    trainer, module.trainer = module.trainer, None
    try:
        yield
    finally:
        module.trainer = trainer
