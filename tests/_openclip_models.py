"""Small models of every family of open_clip, with weights that no default value hides."""

import json
from functools import partial

import numpy as np
import open_clip
import timm
import torch
from safetensors.torch import save_file
from timm.models.convnext import ConvNeXt
from timm.models.eva import Eva
from timm.models.fastvit import FastVit, RepConditionalPosEnc
from timm.models.mlp_mixer import MlpMixer
from timm.models.vision_transformer import VisionTransformer
from timm.models.vision_transformer_hybrid import ConvStem, HybridEmbed

DIM = 24  # of the joint space
TEXT = {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
VIT = {"image_size": 64, "patch_size": 16, "width": 32, "head_width": 16, "layers": 3}


def _conv_stem_vit(**options):
    stem = ConvStem(channels=(8, 8, 32), stride=(4, 2, 2), kernel_size=(4, 2, 2), padding=0)
    embed = partial(HybridEmbed, backbone=stem, proj=False)
    return VisionTransformer(embed_layer=embed, no_embed_class=True, **options)


_SMALL = {"img_size": 64, "patch_size": 16, "embed_dim": 32, "depth": 2, "num_heads": 2}
_ROPE = {"use_rot_pos_emb": True, "ref_feat_shape": (4, 4)}
_TRUNKS = {
    "siglip": partial(VisionTransformer, class_token=False, **_SMALL),
    "gap": partial(VisionTransformer, **_SMALL),
    "mci": partial(_conv_stem_vit, **{**_SMALL, "patch_size": 1}),
    "eva02": partial(
        Eva, qkv_fused=False, swiglu_mlp=True, scale_mlp=True, scale_attn_inner=True, **_ROPE,
        **_SMALL,
    ),
    "pe_core": partial(
        Eva, attn_type="rope", use_pre_transformer_norm=True, rope_grid_offset=1.0,
        rope_grid_indexing="xy", attn_pool_num_heads=2, attn_pool_mlp_ratio=2.0, **_ROPE, **_SMALL,
    ),
    "mixer": partial(MlpMixer, img_size=64, patch_size=16, embed_dim=32, num_blocks=1),
    "convnext": partial(ConvNeXt, depths=(1, 1, 1, 1), dims=(8, 16, 24, 64)),
    "fastvit": partial(
        FastVit, layers=(1, 1, 1, 1), embed_dims=(8, 16, 32, 64),
        token_mixers=("repmixer", "repmixer", "repmixer", "attention"),
        pos_embs=(None, None, None, partial(RepConditionalPosEnc, spatial_shape=(7, 7))),
    ),
}  # fmt: skip


def _register(name, build):
    def entry(pretrained, pretrained_cfg, pretrained_cfg_overlay, cache_dir, **options):
        trunk = build(**options)
        pool = {"pool_size": (2, 2)} if name in ("convnext", "fastvit") else {}
        trunk.default_cfg = trunk.pretrained_cfg = {"input_size": (3, 64, 64), **pool}
        return trunk

    entry.__name__, entry.__module__ = f"skanomaly_{name}", __name__
    timm.models.register_model(entry)


for _name, _build in _TRUNKS.items():
    _register(_name, _build)


def _timm(name, pool, proj=None):
    vision = {"timm_model_name": f"skanomaly_{name}", "timm_pool": pool, "timm_proj": proj}
    return {"vision_cfg": {"image_size": 64, **vision}, "custom_text": True}


CONFIGS = {
    "vit": {"vision_cfg": VIT},
    "vit_avg": {"vision_cfg": {**VIT, "pool_type": "avg", "ls_init_value": 0.5}},
    "clipa": {
        "vision_cfg": {
            **VIT, "pool_type": "avg", "final_ln_after_pool": True, "no_ln_pre": True,
        }
    },
    "coca": {
        "vision_cfg": {
            **VIT, "attentional_pool": True, "attn_pooler_heads": 2, "attn_pooler_queries": 5,
            "output_tokens": True,
        },
        "text_cfg": {**TEXT, "embed_cls": True, "output_tokens": True},
        "multimodal_cfg": TEXT,
        "custom_text": True,
    },
    "siglip": {**_timm("siglip", "map", "none"), "embed_dim": 32, "init_logit_bias": -10},
    "gap": _timm("gap", "avg"),
    "mobileclip_b": _timm("mci", "token"),
    "eva02": _timm("eva02", "token"),
    "pe_core": _timm("pe_core", "map"),
    "mobileclip_s": _timm("fastvit", "avg"),
    "convnext": _timm("convnext", "", "linear"),
    "convnext_mlp": _timm("convnext", "", "mlp"),
    "resnet": {"vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8}},
    "cascade": {"vision_cfg": {**VIT, "attentional_pool": "cascade", "attn_pooler_heads": 2}},
    "pooled_map": _timm("convnext", "rot_attn"),
    "mixer": _timm("mixer", "avg"),
}  # fmt: skip
FAMILIES = [name for name in CONFIGS if name not in ("cascade", "pooled_map", "mixer")]
TRANSFORMERS = [
    name for name in FAMILIES if not name.startswith(("convnext", "resnet", "mobileclip_s"))
]


def write(folder, name, config):
    """Make open_clip know a configuration."""
    config = {"embed_dim": DIM, "text_cfg": TEXT, **config}
    (folder / f"{name}.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder / f"{name}.json")


def register(folder):
    """Make open_clip know the configurations; returns the names by family."""
    for name, config in CONFIGS.items():
        write(folder, f"skanomaly-{name}", config)
    return {name: f"skanomaly-{name}" for name in CONFIGS}


def create(name, **options):
    """A model of open_clip whose every tensor is random; always the same."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        clip = open_clip.create_model(f"skanomaly-{name}", **options).eval()
        with torch.no_grad():
            for tensor in clip.parameters():
                tensor += 0.1 * torch.randn_like(tensor)
            for name, buffer in clip.named_buffers():
                if name.endswith(("running_mean", "running_var")):
                    buffer += torch.rand_like(buffer)
    return clip.requires_grad_(False)


def save(clip, path):
    save_file({name: tensor.contiguous() for name, tensor in clip.state_dict().items()}, path)
    return path


def pixels(images, mean=open_clip.OPENAI_DATASET_MEAN, std=open_clip.OPENAI_DATASET_STD):
    """Images of the model's size as its input, computed in float64."""
    scaled = (np.stack(images) / 255 - mean) / std
    return torch.from_numpy(scaled).float().permute(0, 3, 1, 2)
