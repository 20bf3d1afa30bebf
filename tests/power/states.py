"""What decides how fast a CUDA context runs the same work: nothing that can be chosen in it.

    python tests/power/states.py --contexts 14 > tests/power/records/states-HOST.jsonl

One line a context, a fork each: milliseconds of the chain of products of `workloads/power/chain.py`, medians of eight turns of the engine's
own clock: three times as it is, with four new sets of buffers, with three new cuBLAS workspaces, on three streams. docs/comparing.md
draws the conclusion: a process pair on a device holds several contexts.
"""

# ruff: noqa: E402
from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE)]

import numpy as np
import torch
from workloads.power.chain import PRODUCTS, WIDTH

from effbench.measure import cuda


def chain() -> Callable[[Any], torch.Tensor]:
    rng = np.random.default_rng(0)
    start = torch.tensor(rng.standard_normal((WIDTH, WIDTH)).astype(np.float32)).cuda()
    step = torch.tensor((rng.standard_normal((WIDTH, WIDTH)) / WIDTH**0.5).astype(np.float32)).cuda()

    def call(_):
        found = start
        for _ in range(PRODUCTS):
            found = found @ step
        return found[0]

    return call


@torch.no_grad()
def milliseconds(call: Callable, kit: cuda.TorchKit, turns: int = 8) -> float:
    found = [median(cuda.device_turn(call, [None], seconds=0.01, kit=kit).device) for _ in range(turns)]
    return round(1e3 * median(found), 4)


def context(answer) -> None:
    kit, call, kept = cuda.TorchKit(), chain(), []
    milliseconds(call, kit, 4)
    found: dict[str, list[float]] = {"same": [milliseconds(call, kit) for _ in range(3)]}

    def elsewhere(elements: int) -> None:
        torch.cuda.empty_cache()
        kept.append(torch.empty(elements, device="cuda"))  # what is allocated next lies elsewhere

    found["buffers"] = []
    for number in range(1, 5):
        del call
        elsewhere(3_000_000 * number)
        call = chain()
        found["buffers"].append(milliseconds(call, kit))
    found["workspace"] = []
    for number in range(1, 4):
        torch._C._cuda_clearCublasWorkspaces()
        elsewhere(2_000_000 * number)
        found["workspace"].append(milliseconds(call, kit))
    found["stream"] = []
    for _ in range(3):
        with torch.cuda.stream(torch.cuda.Stream()):
            found["stream"].append(milliseconds(call, kit))
    answer.put({"device": torch.cuda.get_device_name(), "torch": torch.__version__, **found})


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--contexts", type=int, default=14)
    fork = multiprocessing.get_context("fork")
    for _ in range(words.parse_args().contexts):
        answer = fork.Queue()
        process = fork.Process(target=context, args=(answer,))
        process.start()
        print(json.dumps(answer.get(timeout=120)), flush=True)
        process.join()


if __name__ == "__main__":
    main()
