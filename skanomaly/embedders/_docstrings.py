"""Parameters that the embedders share, described once for all their docstrings."""

from __future__ import annotations

EMBEDDER_DOCS = {
    "X": """
X : list, tuple, 1-D array or Series of images, or a 4-D uint8 array
    Paths, bytes, PIL images or arrays.
""",
    "y": """
y : Ignored
    Present for scikit-learn's API.
""",
    "layers": """
layers : int, sequence of int or None, default=None
    Blocks of a vision transformer, or stages of a convolutional network, counted from 0;
    negative from the last. None: the block at a third of the depth, but `DinoV2Patches` takes the
    last; of a network with stages, those at 1/8 and 1/16 of the image, as in PatchCore.
""",
    "fusion": """
fusion : {"concat", "mean"}, default="concat"
    How several layers become one token. Of a transformer each layer's token is brought to
    unit length before.
""",
    "class_token": """
class_token : bool, default=False
    Append what the network makes of the whole image, of unit length, to every token, as a last
    part; what comes before it is brought to unit length too. It is the class token of the last
    block after its normalisation; not for networks without one.
""",
    "value_range": """
value_range : float, (float, float) or None, default=None
    The number in the images that is white, black being 0, or the numbers of black and white:
    4095 for 12 bits in files of 16, ``(20.0, 80.0)`` for temperatures. None: the whole range of
    the images' type. A value outside of it is an error.
""",
    "resize": """
resize : {"squash", "shortest_edge"}, default="squash"
    ``"squash"`` resizes the whole image to a square; ``"shortest_edge"`` keeps the aspect but
    for rounding both sides to a multiple of the patch. The image is never cropped.
""",
    "augmentation": """
augmentation : str, sequence of (str or float) or None, default=None
    Views that `fit_transform` adds. ``"rotate45"``: the image turned by each multiple of 45
    degrees, in its frame, at its own resolution, reflected at the borders, as in AnomalyDINO.
    ``"rotate90"``: turned by quarters with its frame, which must be square when it is resized;
    ``"dihedral"``: these and their mirror images. ``"brightness"``: multiplied by 0.8, 0.9, 1.1
    and 1.2. A list or tuple of names, and of angles in degrees (counterclockwise, in the frame),
    is all of their views, each once. Images of more than 4 million pixels are shrunk to so many
    before they are turned by an angle, or to four times the pixels at which they are embedded.
""",
    "batch_size": """
batch_size : int, default=8
    Images taken at a time: on a CPU side by side, among which torch's threads are shared out,
    on a GPU in one forward pass. There, or with other threads, tokens may differ in their last
    bits, because sums are taken in another order.
""",
    "device": """
device : str, default="auto"
    ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:0"``, ``"mps"``.
""",
    "dtype": """
dtype : {"auto", "float32", "bfloat16", "float16", "int8"}, default="auto"
    Precision of the model. ``"auto"``: bfloat16 for plain vision transformers where the
    processor or the GPU multiplies matrices in it, else float32; a fitted embedder keeps what it
    was at `fit`, on any machine. ``"int8"``: with ``runtime="onnx"`` only.
""",
    "runtime": """
runtime : {"auto", "torch", "openvino", "onnx"}, default="auto"
    What runs the model; ``"auto"`` is torch. ``"openvino"`` and ``"onnx"`` are for CPUs and
    need the extras of these names. See Notes.
""",
    "cache_dir": """
cache_dir : str, os.PathLike or None, default=None
    Folder for tokens, one file an image; each image is then embedded once. They are found by the
    content of the image, whatever its path, and by all that tokens depend on. Which ways to
    compute were measured to be fastest is kept there too, in ``fastest.json``.
""",
    "cache_size": """
cache_size : int, default=20_000_000_000
    Bytes that folder may hold before the least recently used files are removed.
""",
    "n_jobs": """
n_jobs : int or None, default=None
    Workers of joblib, which are threads here; None is one, unless a context of joblib says
    otherwise.
""",
    "stream": """
stream : bool, default=False
    `transform` returns a sequence that computes tokens when they are asked for, in place of an
    array. The scorers of this package take so many images of it at a time that memory does not
    grow with their number, and the results are the same; anything else gets the array. Functions
    for heat maps and for evaluation take images so whatever this is. Transformers between embedder
    and scorer then get the tokens of one image at a time, and must not mix those of several.
""",
    "verbose": """
verbose : bool or int, default=False
    Show a progress bar, and beside it how a vision transformer is computed where that was measured.
""",
}
# What a value of `weights` means is asked in one order, everywhere.
EMBEDDER_DOCS["weights_order"] = """
The meanings are tried in this order: ``"random"``, ``"pretrained"``, a tag, a file.
Anything else is an error that names near tags.
"""
