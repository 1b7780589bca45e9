"""How far a quantised model's answers are from the float model's; accuracy alone hides what logits tell."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fd_runtime.models.model import F32, I64


@dataclass(frozen=True, slots=True)
class Difference:
    """Between two models' logits for the same samples.

    Attributes:
        rmse: root mean square of the logits' differences.
        agreement: share (0..1) of samples with the same likeliest class.
        kl: mean divergence of the softmax from the float model's, in nats.
        accuracy_loss: float model's accuracy (0..1) less the other's; None without labels.
    """

    rmse: float
    agreement: float
    kl: float
    accuracy_loss: float | None

    @classmethod
    def between(cls, exact: F32, logits: F32, labels: I64 | None = None) -> Difference:
        """Compare `logits` [n, classes] with the float model's, and both with labels [n]."""
        answers, expected = logits.argmax(axis=1), exact.argmax(axis=1)
        told, true = _log_softmax(logits), _log_softmax(exact)
        return cls(
            rmse=float(np.sqrt(np.mean((logits.astype(np.float64) - exact) ** 2))),
            agreement=float(np.mean(answers == expected)),
            kl=float(np.mean(np.sum(np.exp(true) * (true - told), axis=1))),
            accuracy_loss=None if labels is None else float(np.mean(expected == labels) - np.mean(answers == labels)),
        )

    @property
    def loss(self) -> float:
        """What a tolerance is about: lost accuracy, or changed answers where nobody knows the right ones."""
        return 1.0 - self.agreement if self.accuracy_loss is None else self.accuracy_loss


def _log_softmax(logits: F32) -> np.typing.NDArray[np.float64]:
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))
