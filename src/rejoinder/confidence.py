"""How sure a ranker may be that its top candidate is right.

A logistic regression on three features of the scores that mean the same in a small and a large
pool: the top score, its margin over the second, and its z-score against all candidates. Fitted on a
development set with pools of many sizes, the right reply present half of the time, so that "none of
these" is learned too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
LARGEST_Z = 20.0  # beyond it, more says nothing more


@dataclass(frozen=True)
class Crowd:
    """What the features need to know of a pool's scores."""

    best: float
    second: float
    mean: float
    spread: float  # standard deviation

    @classmethod
    def of(cls, scores: Floats) -> Crowd:
        """Sum up scores in any order, (N,) with N >= 1; a single one is its own second."""
        values = np.asarray(scores, dtype=np.float64)
        top = np.partition(values, -2)[-2:] if len(values) > 1 else np.repeat(values, 2)
        return cls(float(top[1]), float(top[0]), float(values.mean()), float(values.std()))

    def features(self) -> NDArray[np.float64]:
        """Top score, margin, z-score: -> (3,)"""
        z = (self.best - self.mean) / max(self.spread, 1e-6)
        return np.array([self.best, self.best - self.second, min(z, LARGEST_Z)])


@dataclass(frozen=True)
class Confidence:
    """Weights of the logistic regression; saved in the checkpoint."""

    bias: float
    weights: tuple[float, float, float]  # per top score, margin, z-score

    def of(self, crowd: Crowd) -> float:
        """Probability that the best candidate of a pool is a right reply."""
        return self.of_features(crowd.features())

    def of_features(self, features: Floats) -> float:
        """The same from the three features, (3,)."""
        logit = self.bias + float(np.dot(features, self.weights))
        return float(1 / (1 + np.exp(-np.clip(logit, -50, 50))))


def fit(
    rows: Floats, right: NDArray[np.bool_], ridge: float = 1e-3, rounds: int = 50
) -> Confidence:
    """Fit by Newton's method on standardised features: (R, 3), (R,) -> Confidence."""
    mean, spread = rows.mean(0), np.maximum(rows.std(0), 1e-9)
    x = np.concatenate([np.ones((len(rows), 1)), (rows - mean) / spread], 1)
    beta = np.zeros(x.shape[1])
    for _ in range(rounds):
        p = 1 / (1 + np.exp(-np.clip(x @ beta, -50, 50)))
        gradient = x.T @ (p - right) + ridge * beta
        curvature = (x * (p * (1 - p))[:, None]).T @ x + ridge * np.eye(len(beta))
        step = np.linalg.solve(curvature, gradient)
        beta -= step
        if np.abs(step).max() < 1e-9:
            break
    weights = beta[1:] / spread
    bias = float(beta[0] - np.dot(weights, mean))
    return Confidence(bias, (float(weights[0]), float(weights[1]), float(weights[2])))
