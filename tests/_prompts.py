"""Helpers of the prompt scorer's tests."""

import numpy as np

from skanomaly import PromptScorer


class AxisPrompts(PromptScorer):
    """Prompts that need no encoder: normal things lie along the first axis of any space."""

    def _text_features(self, dim):
        normal = np.eye(1, dim)[0]
        return np.stack([normal, -normal])
