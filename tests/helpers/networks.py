"""Small networks that the tests of plans, surgery and files share."""

import torch
from torch import nn


class Residual(nn.Module):
    def __init__(self, channels, inner):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, inner, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x):
        return torch.relu(x + self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x))))))


class SmallResNet(nn.Module):
    """A stem, residual blocks, a depthwise convolution, a head."""

    def __init__(self, channels=12, inner=16, classes=5, blocks=3):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels))
        self.blocks = nn.Sequential(*(Residual(channels, inner + 4 * k) for k in range(blocks)))
        self.expand = nn.Conv2d(channels, 24, 1)
        self.norm = nn.BatchNorm2d(24)
        self.depthwise = nn.Conv2d(24, 24, 3, padding=1, groups=24)
        self.head = nn.Linear(24, classes)

    def forward(self, x):
        x = torch.relu(self.norm(self.expand(self.blocks(torch.relu(self.stem(x))))))
        return self.head(self.depthwise(x).mean((2, 3)))


def small_resnet(seed=0, **sizes):
    """With BatchNorm scales and statistics drawn at random."""
    torch.manual_seed(seed)
    model = SmallResNet(**sizes)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.1, 1.0)
            nn.init.normal_(module.bias)
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return model.eval()


def images(n=2, size=8, seed=0):
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(seed))
