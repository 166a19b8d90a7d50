"""SSD300 with a ResNet-50 backbone on COCO, pruned while it trains.

::

    torchrun --nproc-per-node 8 examples/ssd300_coco.py --data coco --backbone resnet50.pth --flops 0.5
    python examples/ssd300_coco.py --smoke              # generated images, under a minute

`--data DIR` has `train2017`, `val2017` and `annotations` of COCO (needs pycocotools); ``--backbone
FILE`` a state of torchvision's resnet50, trained on ImageNet. The network is the usual one: the first three
stages of the ResNet, the third without its stride, five more pairs of convolutions, six feature maps. The
schedule is ours: 65 epochs, an event every second until 40, SGD with rate 2.6e-3 for 32 images, a tenth from
epoch 43 and 54.
"""

import argparse
from collections import OrderedDict
from pathlib import Path
from typing import Any

import common
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, DistributedSampler
from torchvision import datasets, models
from torchvision.models.detection.ssd import SSD, DefaultBoxGenerator
from torchvision.transforms import v2

import reprune

CLASSES = 91  # COCO's numbers, 0 is background
RATIOS = [[2], [2, 3], [2, 3], [2, 3], [2], [2]]
SCALES = [0.07, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05]
STEPS = [8, 16, 32, 64, 100, 300]
Batch = tuple[tuple[Tensor, ...], tuple[dict[str, Tensor], ...]]


class Backbone(nn.Module):
    """Six feature maps of sides 38, 19, 10, 5, 3, 1."""

    def __init__(self, arch: str, state: dict[str, Tensor] | None) -> None:
        super().__init__()
        trunk = models.get_model(arch, weights=None)
        if state is not None:
            trunk.load_state_dict(state)
        first = trunk.layer3[0]
        (first.conv2 if hasattr(first, "conv3") else first.conv1).stride = (1, 1)
        first.downsample[0].stride = (1, 1)
        parts = (trunk.conv1, trunk.bn1, trunk.relu, trunk.maxpool, trunk.layer1, trunk.layer2, trunk.layer3)
        self.trunk = nn.Sequential(*parts)
        inputs = trunk.layer4[0].conv1.in_channels
        self.out_channels = [inputs, 512, 512, 256, 256, 256]
        self.more = nn.ModuleList()
        for level, (middle, outputs) in enumerate(
            zip((256, 256, 128, 128, 128), self.out_channels[1:], strict=True)
        ):
            stride, padding = (2, 1) if level < 3 else (1, 0)
            self.more.append(
                nn.Sequential(
                    nn.Conv2d(inputs, middle, 1, bias=False),
                    nn.BatchNorm2d(middle),
                    nn.ReLU(),
                    nn.Conv2d(middle, outputs, 3, stride, padding, bias=False),
                    nn.BatchNorm2d(outputs),
                    nn.ReLU(),
                )
            )
            inputs = outputs

    def forward(self, x: Tensor) -> OrderedDict[str, Tensor]:
        maps = [self.trunk(x)]
        for layer in self.more:
            maps.append(layer(maps[-1]))
        return OrderedDict((str(k), m) for k, m in enumerate(maps))


def network(arch: str, state: dict[str, Tensor] | None, classes: int = CLASSES) -> SSD:
    """SSD300 on `arch`."""
    boxes = DefaultBoxGenerator(RATIOS, scales=SCALES, steps=STEPS)
    return SSD(Backbone(arch, state), boxes, size=(300, 300), num_classes=classes)


class Generated(Dataset[tuple[Tensor, dict[str, Tensor]]]):
    """Images of noise with one bright square each."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        image = 0.2 * torch.rand(3, 300, 300, generator=torch.Generator().manual_seed(index))
        image[:, 40:160, 60:200] += 0.7
        box = torch.tensor([[60.0, 40.0, 200.0, 160.0]])
        return image, {"boxes": box, "labels": torch.tensor([1 + index % 2]), "image_id": torch.tensor(index)}


def coco(folder: Path, part: str, train: bool) -> Any:
    """COCO with the augmentation of SSD."""
    steps: list[nn.Module] = [v2.ToImage()]
    if train:
        steps += [v2.RandomPhotometricDistort(), v2.RandomZoomOut(), v2.RandomIoUCrop()]
        steps += [v2.RandomHorizontalFlip(), v2.SanitizeBoundingBoxes()]
    steps += [v2.ToDtype(torch.float32, scale=True)]
    file = folder / "annotations" / f"instances_{part}.json"
    raw = datasets.CocoDetection(str(folder / part), str(file), transforms=v2.Compose(steps))
    return datasets.wrap_dataset_for_transforms_v2(raw, target_keys=("boxes", "labels", "image_id"))


def collated(items: list[tuple[Tensor, dict[str, Tensor]]]) -> Batch:
    """Images and targets of those items that have a box."""
    kept = [item for item in items if len(item[1].get("boxes", ()))]
    return tuple(zip(*kept, strict=True)) if kept else ((), ())  # type: ignore[return-value]


def evaluated(model: nn.Module, data: Any, device: torch.device) -> float:
    """COCO's mean average precision over IoU 0.5 to 0.95."""
    from pycocotools.cocoeval import COCOeval

    model.eval()
    found = []
    with torch.inference_mode():
        for image, target in data:
            (result,) = model([image.to(device)])
            for (x0, y0, x1, y1), score, label in zip(
                result["boxes"].tolist(), result["scores"].tolist(), result["labels"].tolist(), strict=True
            ):
                box = {"image_id": int(target["image_id"]), "bbox": [x0, y0, x1 - x0, y1 - y0]}
                found.append({**box, "score": score, "category_id": label})
    truth = data.coco if hasattr(data, "coco") else data._dataset.coco
    evaluation = COCOeval(truth, truth.loadRes(found), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return float(evaluation.stats[0])


def main(arguments: list[str] | None = None) -> None:
    """Train, prune on the way, evaluate, save the small network."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("--backbone", type=Path, metavar="FILE")
    parser.add_argument("--batch", type=int, default=32, help="images of a process, default %(default)s")
    parser.add_argument("--workers", type=int, default=8)
    options = common.options_of(parser, 0.5, arguments)
    arch, classes, epochs, until, interval, falls = "resnet50", CLASSES, 65, 40, 2, [43, 54]
    if options.smoke:
        arch, classes, epochs, until, interval, falls = "resnet18", 3, 2, 1, 1, [1]
        options.batch, options.workers, options.flops = 2, 0, 0.8

    place = common.join()
    rank, size, device = place
    images = Generated() if options.smoke else coco(options.data, "train2017", train=True)
    sampler = DistributedSampler(images, size, rank)
    more = {"sampler": sampler, "num_workers": options.workers, "drop_last": True}
    loader = DataLoader(images, options.batch, collate_fn=collated, **more)

    torch.manual_seed(0)
    state = None if options.backbone is None else torch.load(options.backbone, weights_only=True)
    model = network(arch, state, classes).to(device)
    rate = 2.6e-3 * options.batch * size / 32
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9, weight_decay=5e-4)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, falls, gamma=0.1)
    pruner = reprune.Pruner(
        model,
        optimizer,
        ([torch.rand(3, 300, 300, device=device)],),
        flops=options.flops,
        interval=interval,
        until=until,
    )
    file = options.out / "ssd300-training.safetensors"
    everything = (file, model, optimizer, pruner, {"scheduler": scheduler})
    if file.exists():
        reprune.load_training(*everything)

    parallel = place.parallel(model)
    for epoch in range(pruner.epoch, epochs):
        parallel.train()
        sampler.set_epoch(epoch)
        torch.manual_seed(1 + size * epoch + rank)
        for pictures, targets in loader:
            xs = [x.to(device) for x in pictures]
            ys = [{name: value.to(device) for name, value in target.items()} for target in targets]
            loss = sum(parallel(xs, ys).values())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        scheduler.step()
        if pruner.step():
            parallel = place.parallel(model)
        if rank == 0:
            reprune.save_training(*everything)
            print(f"epoch {epoch + 1:3d}  loss {float(loss.detach()):.3f}", flush=True)
    place.finish(pruner, options.out / "ssd300-small.safetensors")
    if rank == 0 and not options.smoke:
        evaluated(model, coco(options.data, "val2017", train=False), device)


if __name__ == "__main__":
    main()
