"""Knowledge-aware fine-tuning: mix contexts that contradict and contexts that do not matter into the fine-tuning data.

Li et al., Large Language Models with Controllable Working Memory, arXiv 2211.05110. A context whose answer was replaced is
answered with the replacement: obey what is relevant. An irrelevant context is answered as the model did before fine-tuning and
without a context, right or wrong: ignore noise. What is left of the rows has a relevant context. Left out: natural questions,
answers replaced by a language model, models of more than one size.
"""

from __future__ import annotations

from effbench import Bound, Claim, param

from .kaft_task import FineTuning


class Kaft(FineTuning):
    name = "kaft"
    claims = (
        Claim(
            "Strengthens controllability: a relevant context is obeyed where it contradicts what the model knows",
            "Li et al., Findings of ACL 2023, doi 10.18653/v1/2023.findings-acl.112, abstract",
            parts=(
                Bound("quality.controllability", ">", 1.0, over="standard-fine-tuning"),
                Bound("quality.controllability", ">=", 0.9),
                Bound("quality.relevant-accuracy", ">=", 0.98, over="standard-fine-tuning"),
                Bound("quality.closed-book-accuracy", ">=", 0.98, over="standard-fine-tuning"),
            ),
            size="quick",
        ),
        Claim(
            "Strengthens robustness: an irrelevant context changes no answer",
            "Li et al., Findings of ACL 2023, doi 10.18653/v1/2023.findings-acl.112, abstract",
            parts=(
                Bound("quality.robustness", ">", 1.0, over="standard-fine-tuning"),
                Bound("quality.relevant-accuracy", ">=", 0.98, over="standard-fine-tuning"),
                Bound("quality.closed-book-accuracy", ">=", 0.98, over="standard-fine-tuning"),
            ),
            size="quick",
        ),
        Claim(
            "Neither property improves with the size of a model that is fine-tuned in the standard way",
            "Li et al., Findings of ACL 2023, abstract",
            untestable="The abstract speaks of T5 and PaLM; one small reader has no such range. Raw rates of facts(d=32), (d=64), "
            "(d=128) show its own slope.",
        ),
    )

    counterfactual = param(0.3333333, sweep=(0.3333333, 0.0))  # shares of the rows with a context
    irrelevant = param(0.3333333, sweep=(0.3333333, 0.0))

    def mix(self):
        return 1 - self.counterfactual - self.irrelevant, self.counterfactual, self.irrelevant
