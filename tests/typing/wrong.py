"""Uses that a type checker must refuse, with the kind of error. Read by test_types.py."""

from __future__ import annotations

import skanomaly
from skanomaly import AnomalibDetector, PatchKNNScorer, create_model, list_models
from skanomaly import Nonsense  # error: attr-defined
from skanomaly.anomalib import Nonsense as Other  # error: attr-defined
from skanomaly.metrics import Nonsense as Metric  # error: attr-defined

skanomaly.Sense  # error: attr-defined
PatchKNNScorer(neighbours=3)  # error: call-arg
AnomalibDetector(checkpoint="model.ckpt")  # error: call-arg
PatchKNNScorer(contamination="auto")  # error: arg-type
list_models(tag=3)  # error: call-arg
create_model(3)  # error: arg-type
