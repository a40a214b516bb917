"""Position embeddings of timm's vision transformers at other sizes than they were trained with.

anomalib replaces timm's rule for them in the whole process. What is built here keeps its own.
"""

import types
from contextlib import contextmanager

from skanomaly._optional import import_optional


def bind_positions(module, resample=None):
    """Give the vision transformers in a model a rule of their own.

    Parameters
    ----------
    module : torch.nn.Module
        Changed in place.
    resample : callable or None, default=None
        Takes the place of ``timm.layers.resample_abs_pos_embed``; None for that function itself.
    """
    vit = import_optional("timm.models.vision_transformer", "torch", "a vision transformer")
    layers = import_optional("timm.layers", "torch", "a vision transformer")
    for part in module.modules():
        if isinstance(part, vit.VisionTransformer) and part.dynamic_img_size:
            # The same code, but for one of the names that it looks up.
            original = type(part)._pos_embed
            rule = resample or layers.resample_abs_pos_embed
            names = {**original.__globals__, "resample_abs_pos_embed": rule}
            function = types.FunctionType(original.__code__, names, original.__name__)
            part._pos_embed = types.MethodType(function, part)


@contextmanager
def timm_positions():
    """While a model is built, in which timm fits the weights of a file to the size asked for."""
    vit = import_optional("timm.models.vision_transformer", "torch", "a vision transformer")
    layers = import_optional("timm.layers", "torch", "a vision transformer")
    present = vit.resample_abs_pos_embed
    vit.resample_abs_pos_embed = layers.resample_abs_pos_embed
    try:
        yield
    finally:
        vit.resample_abs_pos_embed = present
