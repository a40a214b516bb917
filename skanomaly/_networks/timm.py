"""Models of timm with their weights."""

from difflib import get_close_matches

from skanomaly._networks.hub import download_error, timm_file
from skanomaly._networks.loading import read_weights
from skanomaly._networks.positions import bind_positions, timm_positions
from skanomaly._optional import import_optional


def build_timm(name, weights, square, any_size, user):
    """Build a timm model with its weights.

    Parameters
    ----------
    name : str
        A name timm knows.
    weights : str or os.PathLike
        ``"pretrained"``, ``"random"`` or a local file.
    square : int or None
        Side of the square input; None for the model's own.
    any_size : bool
        Whether inputs of other sizes, and other than squares, will come.
    user : str
        What needs it, for error messages.

    Returns
    -------
    torch.nn.Module

    Raises
    ------
    ValueError
        For a name that timm does not have, a size the model cannot take, or a file that is not
        exactly this model's weights.
    OSError
        When the weights cannot be downloaded.
    """
    timm = import_optional("timm", "torch", user)
    torch = import_optional("torch", "torch", user)
    if not timm.is_model(name):
        close = get_close_matches(name.split(".")[0], timm.list_models(), n=3, cutoff=0.5)
        hint = f"; did you mean {', '.join(close)}?" if close else "."
        raise ValueError(f"timm has no model named {name!r}{hint} See timm.list_models()")
    options = {"pretrained": weights == "pretrained"}
    try:
        cfg = timm.get_pretrained_cfg(name)
    except RuntimeError as exc:
        known = ", ".join(timm.list_pretrained(f"{name.split('.')[0]}.*"))
        raise ValueError(f"{name!r} ends in a tag that timm does not have; known: {known}") from exc
    if cfg is not None and cfg.fixed_input_size:
        if any_size:
            options["dynamic_img_size"] = True
        elif square not in (None, cfg.input_size[-1]):
            options["img_size"] = square
    if weights == "pretrained":
        file = timm_file(name)
        if file is not None:  # else timm says that there are none
            file.check_available()
    elif weights != "random":
        state = read_weights(weights, user)
        classifier = cfg.classifier[0] if isinstance(cfg.classifier, tuple) else cfg.classifier
        head = state.get(f"{classifier}.weight")
        n_classes = 0 if head is None else len(head)
        # The number of classes is the file's own, so that timm demands every tensor.
        options["pretrained"], options["num_classes"] = True, n_classes
        options["pretrained_cfg_overlay"] = {"state_dict": state, "num_classes": n_classes}
    try:
        with torch.random.fork_rng(), timm_positions():
            torch.manual_seed(0)
            module = timm.create_model(name, **options)
    except TypeError as exc:
        raise ValueError(
            f"{name} takes images of {cfg.input_size[-1]} pixels only, squashed ({exc}); leave "
            "image_size=None and resize='squash'"
        ) from exc
    except (RuntimeError, KeyError) as exc:
        if weights in ("pretrained", "random"):
            raise download_error(name, exc) from exc
        reason = " ".join(str(exc).split())[:300]
        raise ValueError(f"{weights} does not hold the weights of {name}: {reason}") from exc
    except OSError as exc:
        raise download_error(name, exc) from exc
    bind_positions(module)
    return module


def feature_info(module):
    """What timm says of each layer: a list of dicts with ``reduction`` and ``num_chs``."""
    info = module.feature_info
    return info if isinstance(info, list) else info.info
