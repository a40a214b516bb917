"""The network while it learns: strided convolutions, then dilated bottlenecks, then two heads.

From RGB in [0, 1] to 128 features for each 8 x 8 pixels. The head of ViT-Tiny's tokens takes them
as they are and is dropped when the network is exported; the head of MobileNetV2's takes their mean
over 2 x 2 places and is the one that stays.
"""

import torch
import torch.nn.functional as F
from torch import nn

STEM = ((5, 24), (3, 64), (3, 128))  # kernel and channels; each halves the width and the height
BOTTLENECK = 64
DILATIONS = (1, 2, 1, 4, 1, 2, 4, 1)


class ConvNorm(nn.Sequential):
    """A convolution with batch norm in place of a bias."""

    def __init__(self, n_in, n_out, kernel, stride=1, dilation=1):
        padding = dilation * (kernel - 1) // 2
        super().__init__(
            nn.Conv2d(n_in, n_out, kernel, stride, padding, dilation, bias=False),
            nn.BatchNorm2d(n_out),
        )


class Bottleneck(nn.Module):
    """A residual block: 1 x 1 to fewer channels, 3 x 3 among them, 1 x 1 back."""

    def __init__(self, channels, inner, dilation):
        super().__init__()
        self.reduce = nn.Conv2d(channels, inner, 1)
        self.spatial = ConvNorm(inner, inner, 3, dilation=dilation)
        self.expand = nn.Conv2d(inner, channels, 1)
        nn.init.kaiming_normal_(self.reduce.weight, nonlinearity="relu")
        # What a block adds is small at first, so that eight of them do not blow up the sum.
        nn.init.normal_(self.expand.weight, 0, 0.3 * (2 / inner) ** 0.5)
        nn.init.zeros_(self.reduce.bias)
        nn.init.zeros_(self.expand.bias)

    def forward(self, x):
        y = F.relu(self.reduce(x))
        y = F.relu(self.spatial(y))
        return F.relu(x + self.expand(y))


class TinyNetwork(nn.Module):
    """The network with the heads of both teachers.

    Parameters
    ----------
    stem : sequence of (kernel, channels)
    inner : int
        Channels within a bottleneck.
    dilations : sequence of int
        One for each bottleneck.
    n_components : int
        Of each teacher's whitened tokens.
    """

    def __init__(self, stem=STEM, inner=BOTTLENECK, dilations=DILATIONS, n_components=128):
        super().__init__()
        self.settings = {
            "stem": tuple(map(tuple, stem)),
            "inner": inner,
            "dilations": tuple(dilations),
            "n_components": n_components,
        }
        layers, channels = [], 3
        for kernel, n_out in stem:
            layers.append(ConvNorm(channels, n_out, kernel, stride=2))
            channels = n_out
        self.stem = nn.ModuleList(layers)
        self.body = nn.ModuleList(Bottleneck(channels, inner, d) for d in dilations)
        self.vit_head = nn.Conv2d(channels, n_components, 1)
        self.head = nn.Conv2d(channels, n_components, 1)

    def features(self, x):
        """Features (n, channels, height / 8, width / 8) of RGB (n, 3, height, width) in [0, 1]."""
        x = (x - 0.5) * 4
        for layer in self.stem:
            x = F.relu(layer(x))
        for block in self.body:
            x = block(x)
        return x

    def forward(self, x):
        """Tokens of ViT-Tiny at stride 8 and of MobileNetV2 at stride 16, channels second."""
        x = self.features(x)
        return {"vit": self.vit_head(x), "mobilenet": self.head(F.avg_pool2d(x, 2))}


def as_input(pictures):
    """RGB uint8 (n, height, width, 3), an array or a tensor, as the input of the network."""
    x = torch.as_tensor(pictures).permute(0, 3, 1, 2).float().div_(255)
    return x.contiguous(memory_format=torch.channels_last)
