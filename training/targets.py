"""What the teachers say of a picture: whitened tokens of ViT-Tiny and of MobileNetV2.

ViT-Tiny sees the large picture (448 px) and gives a token for each 8 x 8 pixels of the small one:
those of blocks 3 and 5, each scaled to the same length. MobileNetV2 sees the small picture (224 px)
and gives a token for each 16 x 16 pixels of it: blocks 10 and 13. Both are whitened to 128
components, so that fine differences between tokens weigh as much as coarse ones.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

N_COMPONENTS = 128
VIT_BLOCKS = (3, 5)
MOBILENET_BLOCKS = (10, 13)
VIT_FILE = "vit_tiny_patch16_224.safetensors"
MOBILENET_FILE = "mobilenet_v2_features.safetensors"


@dataclass
class Whitening:
    """A linear map after which tokens have uncorrelated components of variance 1.

    Attributes
    ----------
    mean : ndarray of shape (n_positions or 1, dim), float32
    projection : ndarray of shape (dim, n_components), float32
    eigenvalues : ndarray of shape (dim,), float64, descending
        Variances of all principal components.
    """

    mean: np.ndarray
    projection: np.ndarray
    eigenvalues: np.ndarray

    @classmethod
    def fit(cls, tokens, n_components=N_COMPONENTS, by_position=True):
        """The map of tokens (n_pictures, n_positions, dim).

        Parameters
        ----------
        tokens : ndarray of shape (n_pictures, n_positions, dim)
        n_components : int
        by_position : bool
            Whether the mean of each position goes, as with the tokens of a transformer, which say
            where they are; else one mean, and each dimension is brought to variance 1 first.
        """
        tokens = tokens.astype(np.float64)
        mean = tokens.mean(0 if by_position else (0, 1), keepdims=True)[0]
        rest = (tokens - mean).reshape(-1, tokens.shape[-1])
        scale = np.ones(tokens.shape[-1]) if by_position else rest.std(0) + 1e-6
        rest /= scale
        values, vectors = np.linalg.eigh(rest.T @ rest / len(rest))
        values, vectors = values[::-1], vectors[:, ::-1]
        # An eigenvector's sign is arbitrary: its largest entry shall be positive.
        largest = np.abs(vectors).argmax(0)
        vectors = vectors * np.sign(vectors[largest, np.arange(len(largest))])
        projection = vectors[:, :n_components] / np.sqrt(values[:n_components])
        projection /= scale[:, None]
        return cls(mean.astype(np.float32), projection.astype(np.float32), values.copy())

    def __call__(self, tokens):
        """Whitened tokens, (n_pictures, n_positions, n_components) float32."""
        return (tokens - self.mean) @ self.projection


class VitTeacher:
    """Tokens of blocks 3 and 5 of ViT-Tiny at 448 px.

    Parameters
    ----------
    folder : path
        Where the file of weights is.
    device : str
    """

    def __init__(self, folder, device="cpu"):
        import timm

        file = _existing(folder, VIT_FILE)
        self.network = timm.create_model(
            "vit_tiny_patch16_224",
            pretrained=True,
            pretrained_cfg_overlay={"file": str(file)},
            img_size=448,
            num_classes=0,
        ).eval()
        self.network.blocks = self.network.blocks[: max(VIT_BLOCKS) + 1]
        self.network.to(device, torch.bfloat16)
        self.device = device

    @torch.inference_mode()
    def __call__(self, large):
        """Tokens (n, 784, 384) float32 of pictures (n, 448, 448, 3) uint8."""
        x = torch.from_numpy(large).to(self.device).permute(0, 3, 1, 2)
        x = x.float().div_(127.5).sub_(1).to(torch.bfloat16)
        network = self.network
        tokens = network.norm_pre(network._pos_embed(network.patch_embed(x)))
        kept = []
        for i, block in enumerate(network.blocks):
            tokens = block(tokens)
            if i in VIT_BLOCKS:
                patches = tokens[:, network.num_prefix_tokens :].float()
                length = patches.shape[-1] ** 0.5
                kept.append(torch.nn.functional.normalize(patches, dim=-1) * length)
        return torch.cat(kept, -1).cpu().numpy()


class MobileNetTeacher:
    """Tokens of blocks 10 and 13 of MobileNetV2 at 224 px.

    Parameters
    ----------
    folder : path
        Where the file of weights is.
    device : str
    """

    def __init__(self, folder, device="cpu"):
        import torchvision
        from safetensors.torch import load_file

        network = torchvision.models.mobilenet_v2()
        weights = load_file(_existing(folder, MOBILENET_FILE))
        left = network.load_state_dict(weights, strict=False)
        if left.unexpected_keys or any(key.startswith("features.") for key in left.missing_keys):
            raise ValueError(f"{MOBILENET_FILE} does not hold the features of mobilenet_v2")
        self.blocks = network.features[: max(MOBILENET_BLOCKS) + 1].eval().to(device)
        self.blocks.to(memory_format=torch.channels_last)
        self.device = device

    @torch.inference_mode()
    def __call__(self, small):
        """Tokens (n, 196, 160) float32 of pictures (n, 224, 224, 3) uint8."""
        x = torch.from_numpy(small).to(self.device).permute(0, 3, 1, 2).float().div_(255)
        x = (x - x.new_tensor([0.485, 0.456, 0.406])[:, None, None]) / x.new_tensor(
            [0.229, 0.224, 0.225]
        )[:, None, None]
        x = x.contiguous(memory_format=torch.channels_last)
        kept = []
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i in MOBILENET_BLOCKS:
                kept.append(x.flatten(2).transpose(1, 2))
        return torch.cat(kept, -1).cpu().numpy()


def _existing(folder, name):
    file = Path(folder) / name
    if not file.exists():
        raise FileNotFoundError(
            f"no weights of a teacher at {file}; training/README.md says which are needed"
        )
    return file
