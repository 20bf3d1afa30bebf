"""Variants of the causal FAVOR+ kernels, by hand on a GPU: `python tests/kernels/favor_variants.py`, JSON lines. Temporary.

Each variant: error at 2,000 tokens, us of a call at 65,536 and 4,096, and at 65,536 of each of its kernels alone; the default also
whether large inputs stay finite. `--only` picks variants by name, `--interpret` only checks, on the CPU.
"""

import argparse
import contextlib
import importlib.util
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import favor_causal as by_hand
import torch
from effbench_implementations.attention import favor_kernels

SOURCE = Path(favor_kernels.__file__).with_name("favor_triton.py")
KEYS = """        h = tl.dot(w, tl.trans(k)) * scale - (norm[None, :] + reference[:, None])
        pk = tl.exp2(h).to(tl.bfloat16)
        total = tl.dot(pk, ones, total)
        acc = tl.dot(pk, v, acc)
"""
QUERIES = """        g = tl.dot(q, tl.trans(w)) * scale + bias[None, :]
        pq = tl.exp2(g - tl.max(g, 1)[:, None]).to(tl.bfloat16)
        sums = tl.max(tl.dot(pq, before), 1)
        out = tl.dot(pq, state)
"""
# Less shared memory (state and key features are not in it together): three stages fit twice on a multiprocessor.
QUERIES_FIRST = ((KEYS + QUERIES, QUERIES + KEYS),)
# The normaliser without products.
WIDE = (
    ("[:, None] + tl.zeros([M, 8], tl.float32)", ""),
    ("before = total.to(tl.bfloat16)", "before = total"),
    ("total = tl.dot(pk, ones, total)", "total += tl.sum(tl.exp2(h), 1)"),
    ("tl.exp2(g - tl.max(g, 1)[:, None]).to(tl.bfloat16)", "tl.exp2(g - tl.max(g, 1)[:, None])"),
    ("sums = tl.max(tl.dot(pq, before), 1)\n", "sums = tl.sum(pq * before[None, :], 1)\n        pq = pq.to(tl.bfloat16)\n"),
)
FIXED_BIAS = (
    ("        bias = tl.load(BIAS + at + rows)\n", ""),
    ("    reference = tl.load(REFERENCE", "    bias = tl.load(BIAS + at + rows)\n    reference = tl.load(REFERENCE"),
)
# name: (tile of causal, tile of the keys of segments, segment, replacements)
VARIANTS = {
    "default": ((64, 4, 2), (128, 8, 3), 1024, ()),
    "queries first": ((64, 4, 3), (128, 8, 3), 1024, QUERIES_FIRST),
    "segment 2048": ((64, 4, 2), (128, 8, 3), 2048, ()),
    "8 warps": ((64, 8, 3), (64, 8, 3), 2048, ()),
    "128 tokens": ((128, 8, 2), (128, 8, 2), 2048, ()),
    "queries first, 2048": ((64, 4, 3), (64, 4, 2), 2048, QUERIES_FIRST),
    "wide": ((64, 4, 2), (128, 8, 3), 1024, WIDE),
    "fixed bias": ((64, 4, 2), (128, 8, 3), 1024, FIXED_BIAS),
    "128 tokens, 3 stages": ((128, 8, 3), (64, 8, 2), 2048, ()),
    "segment 512": ((64, 4, 2), (128, 8, 3), 512, ()),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", default=list(VARIANTS))
    parser.add_argument("--interpret", action="store_true")
    parser.add_argument("--check", type=int, default=2000)
    parser.add_argument("--lengths", nargs="*", type=int, default=[65536, 4096])
    asked = parser.parse_args()
    asked.head_dim, asked.features = 64, 128
    device = "cpu" if asked.interpret else "cuda"
    if asked.interpret:
        by_hand.mend()
    torch.manual_seed(0)
    checked = by_hand.inputs(asked, 1 if asked.interpret else 16, asked.check, device)
    timed = {} if asked.interpret else {n: by_hand.inputs(asked, 16, n, device) for n in asked.lengths}
    if timed:
        for favor_kernels.TILES["keys"] in ((64, 8, 3), favor_kernels.TILES["keys"]):
            tile = favor_kernels.TILES["keys"]
            by_hand.say(device=torch.cuda.get_device_name(), bidirectional=True, keys_tile=tile, **times(timed, False))
    for name in asked.only:
        began, line = time.perf_counter(), {"variant": name}
        try:
            with chosen(*VARIANTS[name]):
                line["error"] = by_hand.error(by_hand.favor(*checked, True), *checked, True)
                if name == "default":
                    scaled = [(x.float() * 30).to(x.dtype) for x in checked[:3]]
                    line["finite"] = bool(torch.isfinite(by_hand.favor(*scaled, checked[3], True)).all())
                line |= times(timed, True)
        except Exception as error:  # a variant that does not fit the chip
            line["failed"] = f"{type(error).__name__}: {str(error)[:300]}"
        by_hand.say(**line, seconds=time.perf_counter() - began)
    return 0


@contextlib.contextmanager
def chosen(causal, keys, segment, replacements):
    text = SOURCE.read_text()
    for old, new in replacements:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    before = dict(favor_kernels.TILES), favor_kernels.SEGMENT, favor_kernels.kernels
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "variant.py"
        path.write_text(text)
        spec = importlib.util.spec_from_file_location("variant", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        favor_kernels.TILES |= {"causal": causal, "segments": keys}
        favor_kernels.SEGMENT, favor_kernels.kernels = segment, lambda: module
        try:
            yield
        finally:
            favor_kernels.TILES.update(before[0])
            favor_kernels.SEGMENT, favor_kernels.kernels = before[1:]


class Noted:
    """The module of kernels; every launch through it is also kept, as a call to repeat alone."""

    def __init__(self, module):
        self.module, self.calls = module, {}

    def __getattr__(self, name):
        kernel, calls = getattr(self.module, name), self.calls

        class Grid:
            def __getitem__(self, grid):
                def launch(*arguments, **named):
                    calls[name] = lambda: kernel[grid](*arguments, **named)
                    calls[name]()

                return launch

        return Grid()


def times(timed: dict, causal: bool) -> dict:
    """us of a call by length, and of each kernel alone at the longest."""
    found = {f"us_{n}": by_hand.timed(lambda: by_hand.favor(*x, causal), 0.1) for n, x in timed.items()}  # noqa: B023
    if timed:
        actual = favor_kernels.kernels
        noted = Noted(actual())
        favor_kernels.kernels = lambda: noted
        try:
            by_hand.favor(*timed[max(timed)], causal)
        finally:
            favor_kernels.kernels = actual
        found |= {name: by_hand.timed(call, 0.05) for name, call in noted.calls.items()}
    return found


if __name__ == "__main__":
    sys.exit(main())
