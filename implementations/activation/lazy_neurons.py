"""Lazy neurons: in a trained ReLU transformer a token uses few neurons, so inference need not read the rows of W2 of the others.

Li et al., The Lazy Neuron Phenomenon, arXiv 2210.06313. Training is that of the dense ReLU network: the sparsity comes by itself. Only
W2 is skipped, so the FLOPs fall to (1 + s) / 2 at a share s of neurons in use, one half at best; the gain is for one token, since the
union over a batch is dense. Left out: finding the used neurons before W1, which the paper leaves to future work.
"""

from __future__ import annotations

from effbench import Bound, Claim, param

from .inference import LayerServer
from .mlp import Mlp
from .skipping import SkippingMLP
from .task import TrainedLayer


class LazyNeurons(TrainedLayer):
    name = "lazy-neurons"
    skips = True
    claims = (
        Claim(
            "Training makes ReLU layers sparse, from about half of the neurons at initialisation; here: every layer ends below 0.8 of "
            "its initial share, and the quality is that of the dense network",
            "Li et al., arXiv 2210.06313, section 1.1 and Fig. 1; the 0.8 is our bar for small networks",
            parts=(
                Bound("quality.nonzero-over-initial", "<", 0.8),
                Bound("quality.perplexity", "<=", 1.01, over="dense-relu"),
            ),
            partly=(0,),
            size="quick",
        ),
        Claim(
            "3.0 % of the neurons are nonzero in T5-Base; 2.7 % on average over its layers, 1.1 to 12.0 % by layer",
            "Li et al., arXiv 2210.06313, abstract; section 1.1 and Fig. 1",
            untestable="needs T5-Base and its data; the shares of a small network are measured instead",
        ),
        Claim(
            "Neurons are lazy, not dead: most are active for less than a tenth of the tokens, hardly any for none (the paper: 93.5 % "
            "below a tenth, none dead in the first layer)",
            "Li et al., arXiv 2210.06313, section 2.1 and Fig. 2",
            parts=(Bound("quality.rarely-active", ">", 0.5), Bound("quality.never-active", "<", 0.05)),
            partly=(1,),
            size="full",
        ),
    )

    kernel = param("auto", sweep=["auto", "torch"])

    def layer(self, given):
        return Mlp(given.d, given.width)


class LazyNeuronsServer(LayerServer):
    name = "lazy-neurons"
    claims = (
        Claim(
            "Skipping unused rows of W2 saves FLOPs at the dense answer: below 0.8 of the dense layer for one token",
            "Li et al., arXiv 2210.06313, section 3.1: 1 - s/d_ff of the second product; the 0.8 is our bar",
            parts=(Bound("serve.flops", "<=", 0.8, over="dense-relu", case="batch-1"),),
            size="quick",
        ),
        Claim(
            "and the FLOPs that are saved are seconds: a call for one token takes less time than dense",
            "our own bar for this implementation; no paper states it",
            parts=(Bound("serve.latency", "<", 1.0, over="dense-relu", case="batch-1"),),
            size="quick",
        ),
        Claim(
            "At 3 % of 16,384 neurons at least 70 % of the bytes saved are time saved: 1 - 0.7 (1 - 0.03) / 2 of the dense time",
            "our own bar for this implementation; no paper states it",
            parts=(
                Bound(
                    "serve.latency", "<=", 0.66, over="dense-relu", case="batch-1", data="drawn(d=4096, width=16384, nonzero=0.03)"
                ),
            ),
            size="full",
        ),
    )

    kernel = param("auto", sweep=["auto", "torch"])

    def place(self, layer, put):
        self.k = layer.k
        self.served = SkippingMLP(
            put(layer.up), put(layer.up_bias), put(layer.down), put(layer.bias), k=self.k, threads=self.run.threads,
            kernel_choice=self.kernel,
        )  # fmt: skip

    def forward(self, x):
        out = self.served(x)
        counts = self.served.counts
        self.run.tally(
            active=lambda: counts(x)["active"], union=lambda: counts(x)["union"], rows=lambda: counts(x)["rows"],
            compiled=lambda: self.served.how != "torch",
        )  # fmt: skip
        return out

    def parameters(self):
        served = self.served
        return sum(weight.numel() for weight in (served.up, served.up_bias, served.rows, served.bias))

    def flops(self, phase, case, tally):
        """W1 whole, of W2 the rows used (by any token in the fallback). The counter misses what the C and Triton kernels
        do; with kernel = "torch" it sees all. The tally `compiled` is 1 where one ran and 0 where torch gathered the rows.
        """
        if phase == "build":
            return None
        return self.flops_of(case["tokens"], self.width, tally["rows"], tally["active"], tally["union"])
