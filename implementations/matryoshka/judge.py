"""What the task asks of every arm's embeddings: one linear classifier by one solver, the nearest row, and answers that agree."""

from __future__ import annotations

import numpy as np

from effbench import Wrong

RIDGE = 1e-4  # on weights of standardised inputs, per row
ROUNDS = 60  # of L-BFGS


def probe(known: np.ndarray, labels: np.ndarray, classes: int, asked: np.ndarray) -> np.ndarray:
    """Classes [n] that multinomial logistic regression, fitted to `known`, gives to `asked`."""
    import torch

    middle, spread = known.mean(0), known.std(0) + 1e-6
    x = torch.from_numpy((known - middle) / spread).float()
    y = torch.from_numpy(labels)
    weight = torch.zeros(classes, x.shape[1], requires_grad=True)
    bias = torch.zeros(classes, requires_grad=True)
    solver = torch.optim.LBFGS([weight, bias], max_iter=ROUNDS, history_size=10, line_search_fn="strong_wolfe")

    def closure():
        solver.zero_grad()
        value = torch.nn.functional.cross_entropy(x @ weight.T + bias, y) + RIDGE * weight.square().sum()
        value.backward()
        return value

    with torch.enable_grad():
        solver.step(closure)
    with torch.no_grad():
        scores = torch.from_numpy((asked - middle) / spread).float() @ weight.T + bias
    return scores.argmax(1).numpy()


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def nearest(known: np.ndarray, asked: np.ndarray, block: int = 1000) -> np.ndarray:
    """The row of `known` [n] with the largest cosine to each row of `asked`."""
    table, asked = unit(known).T, unit(asked)
    return np.concatenate([(asked[start : start + block] @ table).argmax(1) for start in range(0, len(asked), block)])


def agree(output: np.ndarray, expected: np.ndarray) -> None:
    """A timed answer is that of the same samples in the scoring pass, but for the last digits."""
    if output.shape != expected.shape or not np.isfinite(output).all():
        raise Wrong(f"an answer of shape {output.shape} instead of {expected.shape}, or not finite")
    if np.abs(output - expected).mean() > 1e-3 * max(float(np.abs(expected).mean()), 1e-6):
        raise Wrong("a timed answer differs from the answer to the same samples in the scoring pass")
