"""Tokens, patch scores and image scores of PatchCore are those of anomalib's."""

import numpy as np
import pytest
from _anomalib_tiny import third_party
from PIL import Image

from skanomaly import PatchKNNScorer, TimmPatches


@pytest.mark.slow
def test_patchcore_is_anomalibs(shared, tmp_path):
    folder = shared / "data" / "cookies"
    torch, timm = pytest.importorskip("torch"), pytest.importorskip("timm")
    pytest.importorskip("anomalib")
    from safetensors.torch import save_file

    with third_party(), torch.random.fork_rng(devices=[]):
        from anomalib.models.image.patchcore.torch_model import PatchcoreModel

        torch.manual_seed(0)
        weights = timm.create_model("resnet18", pretrained=False).state_dict()
        theirs = PatchcoreModel(["layer2", "layer3"], "resnet18", pre_trained=False)
    assert theirs.num_neighbors == 9
    save_file(weights, tmp_path / "weights.safetensors")
    theirs.feature_extractor.feature_extractor.load_state_dict(weights, strict=False)
    paths = sorted((folder / "train" / "good").iterdir())[:6]
    paths += sorted((folder / "test" / "defective").iterdir())[:4]
    images = np.stack([np.asarray(Image.open(path).resize((224, 160))) for path in paths])
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    pixels = torch.from_numpy(((images / 255 - mean) / std).transpose(0, 3, 1, 2)).float()
    theirs.train()
    theirs.feature_extractor.eval()
    embedded = theirs(pixels[:6]).detach().numpy()
    embedder = TimmPatches(
        "resnet18",
        layers=(2, 3),
        image_size=160,
        resize="shortest_edge",
        weights=tmp_path / "weights.safetensors",
        device="cpu",
        dtype="float32",
    )
    tokens = embedder.fit_transform(list(images))
    np.testing.assert_allclose(tokens[:6].reshape(embedded.shape), embedded, atol=1e-4)

    scorer = PatchKNNScorer(metric="euclidean", aggregation="max", coreset=0.1, reweighting=9)
    patches, scores = scorer.fit(tokens[:6]).score_patches(tokens[6:], return_scores=True)
    theirs.memory_bank = torch.from_numpy(scorer.bank_.astype(np.float64))
    theirs.double().eval()
    with torch.no_grad():
        ours = torch.from_numpy(tokens[6:]).double().reshape(-1, tokens.shape[-1])
        found, rows = theirs.nearest_neighbors(ours, 1)
        found, rows = found.reshape(4, -1), rows.reshape(4, -1)
        expected = theirs.compute_anomaly_score(found, rows, ours)
        whole = theirs(pixels[6:].double()).pred_score
    np.testing.assert_allclose(patches.reshape(4, -1), found.numpy(), rtol=1e-5)
    np.testing.assert_allclose(-scores, expected.numpy(), rtol=1e-5)
    np.testing.assert_allclose(-scores, whole.numpy(), rtol=1e-3)
