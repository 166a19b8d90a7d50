"""Lightning's own checkpoints hold the network that was validated, whatever loads them; fits go on."""

import copy
import io
import logging
import pickle
import warnings

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import reprune

pytest.importorskip("lightning", reason='needs pip install "reprune[lightning]"')
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import lightning.pytorch as lightning
    from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint, StochasticWeightAveraging

    from reprune.lightning import REPrune

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # the package's own, about loaders and loggers
    pytest.mark.xdist_group("lightning checkpoints"),
]
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

X = torch.randn(12, 3, 6, 6, generator=torch.Generator().manual_seed(0))
DATA = DataLoader(TensorDataset(X, torch.arange(12) % 4), batch_size=4)
SETTINGS = {"sparsity": 0.5, "rule": "uniform", "interval": 1, "until": 3}


class Scaled(nn.Module):
    """Multiplies channels by a buffer that is in no state."""

    def __init__(self, channels):
        super().__init__()
        self.register_buffer("scale", torch.linspace(0.5, 1.5, channels)[:, None, None], persistent=False)

    def forward(self, x):
        return x * self.scale


class Module(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(
            *(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Sigmoid(), Scaled(8)),
            *(nn.Conv2d(8, 8, 1), nn.ReLU(), nn.Conv2d(8, 4, 1)),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        )
        self.example_input_array = X[:2]

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch):
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch):
        self.log("loss", nn.functional.cross_entropy(self(batch[0]), batch[1]))

    test_step = validation_step

    def predict_step(self, batch):
        return self(batch[0])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.2, momentum=0.9)


class Seen(lightning.Callback):
    """What the network that is validated computes at the end of each epoch."""

    def __init__(self):
        self.outputs, self.channels = [], []

    def on_validation_epoch_start(self, trainer, pl_module):
        if not trainer.sanity_checking and trainer.state.fn == "fit":
            self.outputs.append(outputs(pl_module))
            self.channels.append(pl_module.net[0].out_channels)


def outputs(module):
    training = module.training
    with torch.no_grad():
        found = module.eval().net(X)
    module.train(training)
    return found


def trainer_of(epochs, *callbacks, **settings):
    settings = {"enable_checkpointing": False, "num_sanity_val_steps": 0} | settings
    return lightning.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        callbacks=list(callbacks),
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **settings,
    )


def same(module, expected):
    return torch.allclose(outputs(module), expected, rtol=1e-5, atol=1e-6)


@pytest.fixture(scope="module", params=["shrink", "mask"])
def trained(request, tmp_path_factory):
    """A training of five epochs with a checkpoint of each, and one of each step without the optimizer."""
    folder = tmp_path_factory.mktemp(request.param)
    seen, callback = Seen(), REPrune(**SETTINGS, mode=request.param)
    best = ModelCheckpoint(folder, "{epoch}", monitor="loss", save_top_k=-1, save_last=True)
    steps = ModelCheckpoint(folder, "{step}", save_top_k=-1, every_n_train_steps=1, save_weights_only=True)
    trainer = trainer_of(
        5,
        callback,
        best,
        steps,
        seen,
        enable_checkpointing=True,
        num_sanity_val_steps=1,
        accumulate_grad_batches=2,
    )
    module = Module()
    trainer.validate(module, DATA, verbose=False)
    trainer.fit(module, DATA, DATA)
    return folder, seen, callback, trainer, module


def test_a_fresh_module_computes_what_was_validated(trained):
    folder, seen, callback, _, _ = trained
    assert len(callback.pruner.history) == 3
    names = [f"epoch={k}" for k in range(5)] + [f"step={2 * k + 2}" for k in range(5)]
    for name, expected in zip(names, seen.outputs * 2, strict=True):
        loaded = Module.load_from_checkpoint(folder / f"{name}.ckpt")
        assert loaded.net[0].out_channels == 8
        assert same(loaded, expected), name
    if callback.pruner.mode == "shrink":
        assert seen.channels[0] > seen.channels[2] == seen.channels[4] == 4
        assert not torch.equal(seen.outputs[1], seen.outputs[4])


def test_the_trained_module_takes_the_size_of_the_network_in_a_checkpoint(trained, tmp_path):
    folder, seen, callback, _, trained_module = trained
    module = copy.deepcopy(trained_module)
    assert module.net[0].out_channels == 4
    assert same(module, seen.outputs[4])
    events = callback.pruner.history
    channels = [event.kept["net.0"] + event.regrown["net.0"] for event in events] + [4, 4]
    assert channels[0] > 4
    for epoch in (0, 4, 1):
        module.load_state_dict(torch.load(folder / f"epoch={epoch}.ckpt", weights_only=False)["state_dict"])
        assert same(module, seen.outputs[epoch])
        assert module.net[0].out_channels == channels[epoch]
        reprune.save(module, tmp_path / "small")
        assert same(reprune.load(tmp_path / "small", Module()), seen.outputs[epoch])
        again = copy.deepcopy(module)
        again.load_state_dict(module.state_dict())
        assert str(again) == str(module)
        assert same(again, seen.outputs[epoch])
    assert {name: tuple(t.shape) for name, t in module.state_dict().items()} == {
        name: tuple(t.shape) for name, t in Module().state_dict().items()
    }
    assert module.net.state_dict()["0.weight"].shape[0] == module.net[0].out_channels < 8


def test_test_validate_and_predict_with_a_checkpoint(trained):
    folder, seen, _, trainer, module = trained
    losses = [float(nn.functional.cross_entropy(y, torch.arange(12) % 4)) for y in seen.outputs]
    worst = folder / f"epoch={max(range(5), key=losses.__getitem__)}.ckpt"
    how = {"weights_only": False, "verbose": False}
    for path, loss in (("best", min(losses)), ("last", losses[4]), (worst, max(losses))):
        found = trainer.test(module, DATA, ckpt_path=path, **how)
        assert found[0]["loss"] == pytest.approx(loss, rel=1e-4)
    found = trainer_of(1).validate(Module(), DATA, ckpt_path=folder / "epoch=1.ckpt", **how)
    assert found[0]["loss"] == pytest.approx(losses[1], rel=1e-4)
    predicted = trainer.predict(module, DATA, ckpt_path="last", weights_only=False)
    assert torch.allclose(torch.cat(predicted), seen.outputs[4], rtol=1e-5, atol=1e-6)


def test_checkpoints_and_pickles_of_the_trained_module(trained, tmp_path):
    _, seen, _, trainer, module = trained
    trainer.test(module, DATA, ckpt_path="last", verbose=False, weights_only=False)
    for only in (True, False):
        trainer.save_checkpoint(tmp_path / "end.ckpt", weights_only=only)
        assert same(Module.load_from_checkpoint(tmp_path / "end.ckpt"), seen.outputs[4])

    class WithoutReprune(pickle.Unpickler):
        def find_class(self, package, name):
            assert package.partition(".")[0] != "reprune"
            return super().find_class(package, name)

    again = WithoutReprune(io.BytesIO(pickle.dumps(module))).load()
    assert same(again, seen.outputs[4])
    again.load_state_dict(again.state_dict())


@pytest.mark.parametrize("mode", ["shrink", "mask"])
def test_a_second_fit_continues_the_first(mode, tmp_path):
    def started():
        module, callback, seen = Module(), REPrune(**SETTINGS, mode=mode), Seen()
        keep = ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1)
        trainer = trainer_of(4, callback, keep, seen, enable_checkpointing=True)
        trainer.fit(module, DATA, DATA)
        return module, callback, seen, trainer

    module, callback, seen, trainer = started()
    plan = callback.pruner.plan.to_json()
    for other in (trainer, trainer_of(2, callback)):  # the same trainer for two epochs more, and another
        trainer.fit_loop.max_epochs = 6
        other.fit(module, DATA)
        assert callback.pruner.plan.to_json() == plan
        assert module.net[0].out_channels == 4
        assert not same(module, seen.outputs[3])  # it was trained
    assert callback.pruner.epoch == 8

    for epoch in (0, 3):  # that module, from a checkpoint: as a fresh one
        again = []
        for into, its in ((module, callback), (Module(), REPrune(**SETTINGS, mode=mode))):
            how = {"ckpt_path": tmp_path / f"epoch={epoch}.ckpt", "weights_only": False}
            trainer_of(6, its).fit(into, DATA, **how)
            assert its.pruner.plan.to_json() == plan
            again.append([t.clone() for t in into.net.state_dict().values()])
        assert all(torch.equal(a, b) for a, b in zip(*again, strict=True))


@pytest.mark.parametrize("mode", ["shrink", "mask"])
def test_a_second_fit_continues_a_stopped_one(mode):
    class Stop(lightning.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            trainer.should_stop = trainer.current_epoch == 1

    module, callback = Module(), REPrune(**SETTINGS, mode=mode)
    trainer_of(4, callback, Stop()).fit(module, DATA)
    assert not callback.pruner.finished
    assert len(callback.pruner.history) == 2
    trainer_of(2, callback).fit(module, DATA)
    assert callback.pruner.finished
    assert [event.epoch for event in callback.pruner.history] == [1, 2, 3]
    assert module.net[0].out_channels == 4


AVERAGES = {
    "EMA": lambda: EMAWeightAveraging(decay=0.5),
    "SWA": lambda: StochasticWeightAveraging(swa_lrs=0.1, swa_epoch_start=2),
}


@pytest.mark.parametrize(
    "mode,average,first",
    [("shrink", "EMA", True), ("shrink", "SWA", False), ("mask", "SWA", True), ("mask", "EMA", False)],
)
def test_averages_go_along(mode, average, first, tmp_path):
    def fit(module, **how):
        ours, theirs, seen = REPrune(**SETTINGS, mode=mode), AVERAGES[average](), Seen()
        keep = ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1)
        callbacks = [ours, theirs, keep, seen] if first else [theirs, ours, seen, keep]
        trainer_of(4, *callbacks, enable_checkpointing=True).fit(module, DATA, DATA, **how)
        return theirs, seen

    module = Module()
    theirs, seen = fit(module)
    copy_of_it = theirs._average_model.module if average == "EMA" else theirs._average_model
    for net in (module, copy_of_it):
        assert net.net[0].out_channels == 4
        reprune.save(net, tmp_path / "net")
        assert same(reprune.load(tmp_path / "net", Module()), outputs(net))
    if average == "EMA":  # what is validated is the average, and in the checkpoint
        for epoch, expected in enumerate(seen.outputs):
            assert same(Module.load_from_checkpoint(tmp_path / f"epoch={epoch}.ckpt"), expected)
    again = Module()
    fit(again, ckpt_path=tmp_path / "epoch=1.ckpt", weights_only=False)
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), module.parameters(), strict=True))


def test_two_optimizers_are_refused_and_dry_runs_work():
    class Two(Module):
        def __init__(self):
            super().__init__()
            self.automatic_optimization = False

        def configure_optimizers(self):
            return [torch.optim.SGD(self.net[k].parameters(), lr=0.1) for k in (0, 4)]

    with pytest.raises(ValueError, match="module: expected one optimizer, it has 2"):
        trainer_of(4, REPrune(**SETTINGS)).fit(Two(), DATA)
    callback, module = REPrune(**SETTINGS), Module()
    trainer_of(4, callback, fast_dev_run=True).fit(module, DATA, DATA)
    assert callback.pruner.epoch == 1
    trainer_of(4, callback, overfit_batches=1).fit(module, DATA)
    assert module.net[0].out_channels == 4


def test_a_compiled_module_is_pruned():
    module = Module()
    callback = REPrune(**{**SETTINGS, "until": 1})
    trainer_of(1, callback, limit_train_batches=1).fit(torch.compile(module, backend="eager"), DATA)
    assert module.net[0].out_channels == 4
    assert module._compiler_ctx is not None
    expected = outputs(module)
    fresh = Module()
    fresh.load_state_dict(module.state_dict())
    assert same(fresh, expected)
