"""The Lightning callback, with the real package."""

import inspect
import logging
import warnings

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import reprune
from tests.helpers.networks import SmallResNet, images, small_resnet

pytest.importorskip("lightning", reason='needs pip install "reprune[lightning]"')
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import lightning.pytorch as lightning

    from reprune.lightning import REPrune

pytestmark = pytest.mark.filterwarnings("ignore")  # the package's own, about loaders and loggers
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


class Module(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.network = small_resnet()
        self.example_input_array = images(2)

    def forward(self, x):
        return self.network(x)

    def training_step(self, batch):
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)


def fit(epochs, callback, module=None, **how):
    module = Module() if module is None else module
    data = DataLoader(TensorDataset(images(16), torch.arange(16) % 5), batch_size=8)
    trainer = lightning.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        callbacks=[callback],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, data, **how)
    return module, trainer


@pytest.mark.parametrize("mode", ["shrink", "mask"])
def test_pruned_like_in_a_plain_loop_and_gone_on_from_a_checkpoint(mode, tmp_path):
    settings = {"sparsity": 0.5, "interval": 1, "until": 3, "mode": mode}
    callback = REPrune(**settings)
    module, _ = fit(5, callback)
    assert callback.pruner.finished

    plain = small_resnet()
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.05, momentum=0.9)
    pruner = reprune.Pruner(plain, optimizer, images(2), **settings)
    for _ in range(5):
        plain.train()
        for k in range(2):
            optimizer.zero_grad()
            x, y = images(16)[8 * k : 8 * k + 8], torch.arange(8 * k, 8 * k + 8) % 5
            nn.functional.cross_entropy(plain(x), y).backward()
            optimizer.step()
        pruner.step()
    pruner.finalize()
    mine, theirs = pruner.history[0], callback.pruner.history[0]
    assert {f"network.{name}": kept for name, kept in mine.kept.items()} == theirs.kept
    assert len(callback.pruner.history) == 3

    first = REPrune(**settings)
    _, trainer = fit_until(2, first, tmp_path / "two.ckpt")
    assert trainer.current_epoch == 2
    again = REPrune(**settings)
    other, _ = fit(5, again, ckpt_path=tmp_path / "two.ckpt", weights_only=True)
    assert again.pruner.plan.to_json() == callback.pruner.plan.to_json()
    assert str(other) == str(module)
    assert all(torch.equal(a, b) for a, b in zip(other.parameters(), module.parameters(), strict=True))


def fit_until(epochs, callback, path):
    """Training that is stopped after `epochs`, its checkpoint left at `path`."""

    class Stop(lightning.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            if trainer.current_epoch == epochs - 1:
                trainer.should_stop = True

        def on_train_end(self, trainer, pl_module):
            trainer.save_checkpoint(path)

    data = DataLoader(TensorDataset(images(16), torch.arange(16) % 5), batch_size=8)
    module = Module()
    trainer = lightning.Trainer(
        max_epochs=5,
        accelerator="cpu",
        callbacks=[callback, Stop()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, data)
    return module, trainer


def test_the_arguments_are_those_of_the_pruner():
    theirs = dict(inspect.signature(reprune.Pruner).parameters)
    mine = inspect.signature(REPrune).parameters
    for name in ("model", "optimizer", "copies", "shard"):  # the trainer has the model, and takes no other
        del theirs[name]
    assert theirs.keys() == mine.keys()
    del theirs["example_inputs"]
    assert all(mine[name].default == parameter.default for name, parameter in theirs.items())
    assert REPrune(flops=0.5, seed=3)._settings == {
        **{name: parameter.default for name, parameter in theirs.items()},
        **{"flops": 0.5, "seed": 3},
    }


def test_errors():
    module = Module()
    module.example_input_array = None
    for callback, message in [
        (REPrune(sparsity=0.5, until=4), "example_inputs: none given"),
        (REPrune(images(2), sparsity=0.5, until=180), "until: the last event comes after epoch 180"),
    ]:
        with pytest.raises(ValueError, match=message):
            fit(4, callback, module)
    assert isinstance(module.network, SmallResNet)
