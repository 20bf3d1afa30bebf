"""The replay table: random configurations of a small network, trained once, with their errors after each epoch.

Plain SGD with momentum and constant learning rate: a schedule tied to the last epoch would make early errors lie about late ones.
Written in numpy with one flat parameter vector, since the batches are so small that a framework's overhead would be most of
the time. A configuration whose weights stop being finite has failed: its errors are NaN from that epoch on.
"""

from __future__ import annotations

import itertools

import numpy as np

NAMES = ("width", "depth", "rate", "momentum", "decay", "dropout", "batch")


def draw(count: int, rng) -> np.ndarray:
    """float64 [count, 7], columns as in `NAMES`: scales are drawn uniformly in their logarithm."""
    return np.column_stack(
        [
            np.floor(2 ** rng.uniform(3, 8, count)),
            rng.integers(1, 4, count),
            10 ** rng.uniform(-4, 0.5, count),
            rng.uniform(0, 0.99, count),
            10 ** rng.uniform(-6, -1, count),
            rng.uniform(0, 0.6, count),
            2.0 ** rng.integers(5, 9, count),
        ]
    )


def split(features: np.ndarray, labels: np.ndarray, sizes: tuple[int, int], rng) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Random parts `train`, `validation` (of these sizes) and `test` (the rest), standardised with the training rows."""
    order = rng.permutation(len(features))
    labels = np.unique(labels, return_inverse=True)[1].reshape(-1)
    ends = (sizes[0], sizes[0] + sizes[1])
    mean, spread = features[order[: ends[0]]].mean(0), features[order[: ends[0]]].std(0)
    scaled = ((features - mean) / np.where(spread > 0, spread, 1)).astype(np.float32)
    parts = zip(("train", "validation", "test"), np.split(order, ends))
    return {name: (scaled[rows], labels[rows]) for name, rows in parts}


class Network:
    """A perceptron with ReLU; weights, velocity and gradient are views into one flat vector each."""

    def __init__(self, sizes: list[int], rng):
        shapes = [shape for a, b in itertools.pairwise(sizes) for shape in ((a, b), (b,))]
        ends = np.cumsum([0] + [int(np.prod(shape)) for shape in shapes])
        self.flat, self.gradient, self.velocity = (np.zeros(ends[-1], np.float32) for _ in range(3))

        def view(flat):
            arrays = [flat[start:end].reshape(shape) for start, end, shape in zip(ends, ends[1:], shapes)]
            return list(zip(arrays[::2], arrays[1::2]))

        self.layers, self.gradients = view(self.flat), view(self.gradient)
        for weight, _ in self.layers:
            weight[:] = rng.standard_normal(weight.shape, np.float32) * np.sqrt(2 / len(weight))

    def predict(self, x: np.ndarray) -> np.ndarray:
        for weight, bias in self.layers[:-1]:
            x = x @ weight
            x += bias
            np.maximum(x, 0, out=x)
        weight, bias = self.layers[-1]
        return (x @ weight + bias).argmax(1)

    def step(self, x: np.ndarray, target: np.ndarray, *, rate: float, momentum: float, decay: float, keep: float, rng) -> None:
        """One update on a batch; `target` is one-hot. Dropout keeps a unit with probability `keep` (in steps of 1/256)."""
        inputs = [x]
        for weight, bias in self.layers[:-1]:
            x = x @ weight
            x += bias
            np.maximum(x, 0, out=x)
            if keep < 1:
                x *= (np.frombuffer(rng.bytes(x.size), np.uint8) < round(256 * keep)).reshape(x.shape)
                x *= np.float32(1 / keep)
            inputs.append(x)
        weight, bias = self.layers[-1]
        x = x @ weight
        x += bias
        x -= x.max(1, keepdims=True)
        np.exp(x, out=x)
        x /= x.sum(1, keepdims=True)
        x -= target
        x *= np.float32(rate / len(x))  # the velocity holds the step itself, rate included: fewer passes over the weights
        for i in reversed(range(len(self.layers))):
            np.matmul(inputs[i].T, x, out=self.gradients[i][0])
            np.matmul(np.ones(len(x), np.float32), x, out=self.gradients[i][1])
            if i:
                x = x @ self.layers[i][0].T
                x *= inputs[i] > 0  # dropped units are zero as well
                if keep < 1:
                    x *= np.float32(1 / keep)
        self.velocity *= np.float32(momentum)
        self.velocity += self.gradient
        np.multiply(self.flat, np.float32(rate * decay), out=self.gradient)
        self.velocity += self.gradient
        self.flat -= self.velocity


def train(setting: np.ndarray, parts: dict, epochs: int, rng) -> tuple[np.ndarray, np.ndarray]:
    """Validation and test error of one configuration after each epoch: two float64 [epochs], NaN from a failure on."""
    width, depth, rate, momentum, decay, dropout, batch = (float(value) for value in setting)
    (x, y), (vx, vy), (tx, ty) = (parts[name] for name in ("train", "validation", "test"))
    classes = int(max(labels.max() for _, labels in parts.values())) + 1
    network = Network([x.shape[1]] + [int(width)] * int(depth) + [classes], rng)
    held, answers = np.concatenate([vx, tx]), np.concatenate([vy, ty])
    one_hot = np.eye(classes, dtype=np.float32)[y]
    errors = np.full((2, epochs), np.nan)
    with np.errstate(all="ignore"):
        for epoch in range(epochs):
            order = rng.permutation(len(x))
            xs, ys = x[order], one_hot[order]
            for start in range(0, len(x), int(batch)):
                rows = slice(start, start + int(batch))
                network.step(xs[rows], ys[rows], rate=rate, momentum=momentum, decay=decay, keep=1 - dropout, rng=rng)
            if not np.isfinite(network.flat).all():
                break
            wrong = network.predict(held) != answers
            errors[:, epoch] = wrong[: len(vy)].mean(), wrong[len(vy) :].mean()
    return errors[0], errors[1]


def build(features: np.ndarray, labels: np.ndarray, *, sizes: tuple[int, int], configurations: int, epochs: int, seed: int) -> dict:
    """`settings` [C, 7], `val_error` and `test_error` [C, E] (a share of rows; NaN where the trial had failed), `epoch_cost` [C].

    `epoch_cost` is nominal: every epoch costs 1, so that the tables' unit of time is one epoch.
    """
    parts = split(features, labels, sizes, np.random.default_rng([seed, 0]))
    settings = draw(configurations, np.random.default_rng([seed, 1]))
    errors = np.array([train(row, parts, epochs, np.random.default_rng([seed, 2, i])) for i, row in enumerate(settings)])
    return {
        "settings": settings,
        "val_error": errors[:, 0],
        "test_error": errors[:, 1],
        "epoch_cost": np.ones(configurations),
    }
