"""Small plain vision transformers of timm."""

import torch
from timm.models import vision_transformer

VARIANTS = {
    "plain": {},
    "layer scale": {"init_values": 0.5},
    "registers": {"reg_tokens": 4},
    "registers without position": {"reg_tokens": 4, "no_embed_class": True},
    "no class token": {"class_token": False, "global_pool": "avg"},
    "normalised before": {"pre_norm": True},
    "no bias": {"qkv_bias": False, "proj_bias": False},
    "other sizes": {"dynamic_img_size": True},
    "another activation": {"act_layer": torch.nn.SiLU},
}


def transformer(**options):
    """A small one of random weights that all count."""
    torch.manual_seed(0)
    module = vision_transformer.VisionTransformer(
        **{"img_size": 48, "patch_size": 8, "embed_dim": 64, "depth": 3, "num_heads": 4, **options}
    )
    for parameter in module.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return module.eval().requires_grad_(False)
