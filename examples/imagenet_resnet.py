"""ImageNet, ResNet-18, 34 or 50, pruned while it trains with the paper's schedule.

250 epochs, an event every second until epoch 180; SGD, batch 8 x 128, label smoothing 0.1, cosine with 8
epochs of warm-up, mixup 0.2 (REPrune, AAAI 2024, section "Experiments")::

    torchrun --nproc-per-node 8 examples/imagenet_resnet.py --data imagenet --arch resnet50 --flops 0.43
    python examples/imagenet_resnet.py --smoke          # generated images, seconds

`--data DIR` has the folders `train` and `val`, a folder of images for each class. What is killed goes
on when it is started again. Not said in the paper, ours: rate 0.1 for 256 images, momentum 0.9, weight decay
1e-4 (none for BatchNorm and biases), crops of 224.
"""

import argparse
from pathlib import Path

import common
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset
from torchvision import datasets, models, transforms

import reprune

ARCHITECTURES = ("resnet18", "resnet34", "resnet50")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def data(folder: Path | None, part: str) -> torch.utils.data.Dataset[tuple[Tensor, int]]:
    """Images and labels; generated where `folder` is None."""
    if folder is None:
        labels = torch.arange(64) % 10
        patterns = torch.randn(10, 3, 64, 64, generator=torch.Generator().manual_seed(0))
        return TensorDataset(patterns[labels] + torch.randn(64, 3, 64, 64), labels)
    if part == "train":
        steps = [transforms.RandomResizedCrop(224), transforms.RandomHorizontalFlip()]
    else:
        steps = [transforms.Resize(256), transforms.CenterCrop(224)]
    steps += [transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    return datasets.ImageFolder(str(folder / part), transforms.Compose(steps))


def mixed_up(x: Tensor, y: Tensor, classes: int, alpha: float) -> tuple[Tensor, Tensor]:
    """Mixup (Zhang et al., 2018): images and one-hot labels [B, classes], mixed in pairs."""
    share = float(torch.distributions.Beta(alpha, alpha).sample())
    partner = torch.randperm(len(x), device=x.device)
    target = nn.functional.one_hot(y, classes).float()
    return share * x + (1 - share) * x[partner], share * target + (1 - share) * target[partner]


def optimizer_for(model: nn.Module, rate: float) -> torch.optim.SGD:
    """SGD; only weights of two or more dimensions decay."""
    weights = [p for p in model.parameters() if p.dim() > 1]
    others = [p for p in model.parameters() if p.dim() <= 1]
    groups = [{"params": weights}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.SGD(groups, lr=rate, momentum=0.9, nesterov=True, weight_decay=1e-4)


def accuracy(model: nn.Module, loader: DataLoader[tuple[Tensor, Tensor]], device: torch.device) -> float:
    """Share of this process's part of the images that is named rightly."""
    model.eval()
    right = count = 0
    with torch.inference_mode():
        for x, y in loader:
            right += int((model(x.to(device)).argmax(1).cpu() == y).sum())
            count += len(y)
    return right / count


def main(arguments: list[str] | None = None) -> None:
    """Train, prune on the way, save the small network."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("--arch", choices=ARCHITECTURES, default="resnet50")
    parser.add_argument("--batch", type=int, default=128, help="images of a process, default %(default)s")
    parser.add_argument("--workers", type=int, default=8)
    options = common.options_of(parser, 0.43, arguments)
    epochs, until, interval, warm_up, classes = 250, 180, 2, 8, 1000
    if options.smoke:
        epochs, until, interval, warm_up, classes = 2, 1, 1, 1, 10
        options.arch, options.batch, options.workers = "resnet18", 16, 0

    place = common.join()
    rank, size, device = place
    cuda = device.type == "cuda"
    sampler = DistributedSampler(data(options.data, "train"), size, rank)
    more = {"batch_size": options.batch, "num_workers": options.workers, "pin_memory": cuda}
    train = DataLoader(sampler.dataset, sampler=sampler, drop_last=True, **more)
    held_out = data(options.data, "val")
    test = DataLoader(held_out, sampler=DistributedSampler(held_out, size, rank, shuffle=False), **more)

    torch.manual_seed(0)
    model = models.get_model(options.arch, weights=None, num_classes=classes).to(device)
    optimizer = optimizer_for(model, rate=0.1 * options.batch * size / 256)
    rise = torch.optim.lr_scheduler.LinearLR(optimizer, 0.01, total_iters=warm_up)
    fall = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs - warm_up)
    scheduler = torch.optim.lr_scheduler.SequentialLR(optimizer, [rise, fall], [warm_up])
    scaler = torch.amp.GradScaler(device.type, enabled=cuda)
    loss_of = nn.CrossEntropyLoss(label_smoothing=0.1)
    example = torch.randn(1, 3, *((64, 64) if options.smoke else (224, 224)), device=device)
    pruner = reprune.Pruner(model, optimizer, example, flops=options.flops, interval=interval, until=until)
    state = options.out / f"{options.arch}-training.safetensors"
    everything = (state, model, optimizer, pruner, {"scheduler": scheduler, "scaler": scaler})
    if state.exists():
        reprune.load_training(*everything)

    parallel = place.parallel(model)
    for epoch in range(pruner.epoch, epochs):
        parallel.train()
        sampler.set_epoch(epoch)
        torch.manual_seed(1 + size * epoch + rank)  # each process mixes on its own
        for x, y in train:
            x, y = mixed_up(x.to(device, non_blocking=True), y.to(device), classes, alpha=0.2)
            optimizer.zero_grad()
            with torch.autocast(device.type, torch.float16, enabled=cuda):
                loss = loss_of(parallel(x), y)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
        scheduler.step()
        if pruner.step():
            parallel = place.parallel(model)
        score = accuracy(model, test, device)
        if rank == 0:
            reprune.save_training(*everything)
            print(f"epoch {epoch + 1:3d}  accuracy {score:.4f}", flush=True)
    place.finish(pruner, options.out / f"{options.arch}-small.safetensors")


if __name__ == "__main__":
    main()
