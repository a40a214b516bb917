"""Images per second of FilterBankPatches on one core, at 256 x 256 pixels.

Run ``python -m benchmarks.filter_bank``. Threads of the linear algebra are held to one. The images
are generated surfaces; the first figure is of the features alone, the second of
``FilterBankPatches().transform`` on PNG files of 512 x 512 pixels, decoding and resizing included.
"""

import json
import tempfile
import time
from pathlib import Path
from statistics import median

from PIL import Image
from threadpoolctl import threadpool_limits

from skanomaly import FilterBankPatches
from skanomaly.core.filter_bank import filter_bank_features
from skanomaly.datasets import make_surfaces


def seconds(function, repeats=15):
    """Median processor time of a call, after one that does not count."""
    function()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        function()
        times.append(time.process_time() - start)
    return median(times)


def main():
    small = make_surfaces(1, surface="disc", image_size=256, random_state=0).images[0]
    large = make_surfaces(8, surface="disc", image_size=512, random_state=0).images
    embedder = FilterBankPatches()
    with threadpool_limits(1), tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{i}.png" for i in range(len(large))]
        for path, image in zip(paths, large, strict=True):
            Image.fromarray(image).save(path)
        result = {
            "features_images_per_second": 1 / seconds(lambda: filter_bank_features(small)),
            "transform_images_per_second": len(paths)
            / seconds(lambda: embedder.transform(paths), repeats=5),
        }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
