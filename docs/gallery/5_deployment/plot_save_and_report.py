"""
Keep a model, and hand over a report
====================================

How do I take a model to another computer, and show what it found to people who have no Python?
With two files: a model file, which is not a pickle, and a report of one page. This example writes
and reads both.
"""

# %%
# Save and load
# -------------
#
# The file is not a pickle: loading it runs no code from it. The loaded model gives the same
# scores, to the last bit.

import re
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.pipeline import make_pipeline

from skanomaly import (
    FilterBankPatches,
    PatchKNNScorer,
    load_model,
    model_manifest,
    save_model,
    write_report,
)
from skanomaly.datasets import make_surfaces
from skanomaly.evaluation import scored_images
from skanomaly.inspection import AnomalyMapDisplay

data = make_surfaces(36, 6, surface="brushed_metal", image_size=96, random_state=0)
for folder, images in (("good", data.images[:30]), ("new", data.images[30:])):
    Path(folder).mkdir(exist_ok=True)
    for number, image in enumerate(images):
        Image.fromarray(image).save(f"{folder}/{number:02d}.png")
good, new = sorted(Path("good").glob("*.png")), sorted(Path("new").glob("*.png"))

detector = make_pipeline(FilterBankPatches(image_size=96), PatchKNNScorer()).fit(good)
save_model(detector, "metal.skan")
loaded = load_model("metal.skan")
same = np.array_equal(loaded.score_samples(new), detector.score_samples(new))
print(f"{Path('metal.skan').stat().st_size / 1e6:.1f} MB, the same scores: {same}")

# %%
# What is in it
# -------------
#
# The manifest can be read without loading the model. It says where the threshold comes from, which
# images the model has seen, and which versions made it.

manifest = model_manifest("metal.skan")
print("estimator:", manifest["estimator"]["text"])
print("training images:", manifest["training_images"]["count"])
print("threshold:", manifest["calibration"]["threshold"])

# %%
# The report
# ----------
#
# The report is one HTML file that needs neither network nor server. It shows the images under
# their heat maps, the most unusual first, the threshold on a slider, and why each image was
# flagged.

scored = scored_images(loaded, new)
write_report(scored, "report.html")
page = Path("report.html").read_text(encoding="utf-8")
print(
    f"report.html: {len(page) / 1e6:.1f} MB, {len(re.findall('data:image', page))} pictures in it"
)

# %%
# For labelled images the report shows performance and costs, too. On paper, or in a mail, a
# picture is enough: these are the images with the lowest scores, that is, the most anomalous ones.

lowest = np.argsort(loaded.score_samples(new))[:4]
display = AnomalyMapDisplay.from_estimator(loaded, [new[i] for i in lowest])
display.figure_.savefig("lowest.png")

# %%
# You only have to send a model file and a page. :doc:`/models` says what is in the file, and whom
# to trust; :doc:`/report` says what the page shows.
