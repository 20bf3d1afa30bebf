"""Top-k thresholding: of each token's activations the k largest stay, in training and inference, so that sparsity is chosen.

Li et al., The Lazy Neuron Phenomenon, arXiv 2210.06313, section 3. ReLU first: fewer than k above zero leaves fewer. Gradients pass
through what is kept. Ties go to the first neurons. The selection here is exact; the paper's timing used an approximate one
(recall 0.95). Training executes dense products: zeros are saved in inference only. Left out: approximate and statistical selection.
"""

from __future__ import annotations

from effbench import Bound, Claim, knob, param

from .lazy_neurons import LazyNeuronsServer
from .mlp import Mlp
from .task import TrainedLayer


class TopK(TrainedLayer):
    name = "top-k-mlp"
    skips = True
    claims = (
        Claim(
            "Top-k of 128 out of 3,072 neurons matches the dense model (T5-Base); here: k = f / 24 within 1 % of its perplexity",
            "Li et al., arXiv 2210.06313, Fig. 5; the 1 % is our bar",
            parts=(Bound("quality.perplexity", "<=", 1.01, over="dense-relu", data="next-bytes(noise=0.0)"),),
            size="quick",
        ),
        Claim(
            "Better than dense under label noise: ViT with Top-128, 62.13 against 59.44 % accuracy at 40 % noisy labels; here: perplexity",
            "Li et al., arXiv 2210.06313, Table 1",
            parts=(Bound("quality.perplexity", "<", 1.0, over="dense-relu", data="next-bytes(noise=0.4)"),),
            size="quick",
        ),
        Claim(
            "Better calibrated: expected calibration error 7.48 against 8.42 % (ViT on ImageNet-1k)",
            "Li et al., arXiv 2210.06313, Table 1",
            parts=(Bound("quality.calibration-error", "<", 1.0, over="dense-relu", data="next-bytes(noise=0.0)"),),
            size="quick",
        ),
        Claim(
            "More robust to corrupted inputs (Gaussian, impulse and shot noise on ImageNet-1k); here: a tenth of the bytes is random",
            "Li et al., arXiv 2210.06313, Table 1",
            parts=(Bound("quality.perplexity-corrupted", "<", 1.0, over="dense-relu", data="next-bytes(noise=0.0)"),),
            size="quick",
        ),
        Claim(
            "Better than a dense network of as many FLOPs a token",
            "our own bar: the trivial rival; no paper states it",
            parts=(Bound("quality.perplexity", "<", 1.0, over="dense-relu-small", data="next-bytes(noise=0.0)"),),
            size="quick",
        ),
    )

    divisor = param(24, sweep=[4, 16, 24, 32, 64])  # k = f / divisor; the paper's 128 of 3,072 is 24
    kernel = param("auto", sweep=["auto", "torch"])

    def layer(self, given):
        return Mlp(given.d, given.width, "relu", kept(given.width, self.divisor))


class TopKServer(LazyNeuronsServer):
    name = "top-k-mlp"
    exact = False
    claims = (
        Claim(
            "About 10 % less time for a decoded token with k <= 128: T5-11B, batch 1, greedy, one TPUv4",
            "Li et al., arXiv 2210.06313, section 3.2 and Fig. 6",
            untestable="needs T5-11B; a layer alone is timed here, against the dense one",
        ),
    )

    divisor = knob(24, sweep=[4, 24, 64])

    def forward(self, x):
        self.served.k = min(kept(self.width, self.divisor), self.k or self.width)
        return super().forward(x)


def kept(width: int, divisor: int) -> int:
    if divisor < 1:
        raise ValueError(f"divisor={divisor} must be at least 1: k = width / divisor")
    return max(1, width // divisor)
