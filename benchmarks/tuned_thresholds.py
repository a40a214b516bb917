"""What the costs that `tune_threshold` states are worth: python -m benchmarks.tuned_thresholds

Scores of good images and defects are drawn from normal distributions, so that the cost of a
threshold on new images is known. It is compared to the cost on the images that chose the
threshold, and to the one out of bag.
"""

import argparse
import warnings

import numpy as np
from scipy.stats import norm
from sklearn.base import BaseEstimator, OutlierMixin

from skanomaly import tune_threshold


class GivenScores(OutlierMixin, BaseEstimator):
    """Takes scores for images."""

    def fit(self, X, y=None):
        """Set some threshold."""
        self.offset_ = -1.0
        return self

    def score_samples(self, X):
        """The scores."""
        return np.asarray(X)[:, 0]

    def decision_function(self, X):
        """Scores less the threshold."""
        return self.score_samples(X) - self.offset_

    def predict(self, X):
        """Decisions."""
        return np.where(self.decision_function(X) < 0, -1, 1)


def main():
    """Print means over the repeats."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=400)
    parser.add_argument("--good", type=int, default=50)
    parser.add_argument("--defects", type=int, default=10)
    parser.add_argument("--distance", type=float, default=2.5, help="in standard deviations")
    parser.add_argument("--cost-miss", type=float, default=20.0)
    parser.add_argument("--prevalence", type=float, default=0.05)
    options = parser.parse_args()
    scorer = GivenScores().fit(None)
    y = [1] * options.good + [-1] * options.defects
    share, costs = options.prevalence, []
    for seed in range(options.repeats):
        random = np.random.default_rng(seed)
        good = random.normal(size=options.good)
        bad = random.normal(-options.distance, size=options.defects)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # where it is cheapest to flag all or none
            tuned = tune_threshold(
                scorer,
                np.concatenate([good, bad])[:, None],
                y,
                cost_miss=options.cost_miss,
                prevalence=share,
                random_state=seed,
            )
        misses = share * options.cost_miss * norm.sf(tuned.threshold + options.distance)
        new = misses + (1 - share) * norm.cdf(tuned.threshold)
        costs.append((tuned.expected_cost, new, tuned.out_of_bag_cost))
    same, new, out_of_bag = np.transpose(costs)
    print(f"cost on the images that chose the threshold: {same.mean():.3f}")
    print(f"cost on new images:                          {new.mean():.3f}")
    print(f"cost out of bag:                             {out_of_bag.mean():.3f}")
    error = np.sqrt(((out_of_bag - new) ** 2).mean())
    print(f"its error, root mean square:                 {error:.3f}")


if __name__ == "__main__":
    main()
