"""Expert layers beside the dense layer of the same active FLOPs on one GPU, in bfloat16: `python tests/kernels/expert_layers.py`.

JSON lines. A layer: seconds of a call as it is and as a replayed CUDA graph, useful FLOP/s (two experts a token and the gate,
whatever is executed) and their share of the dense layer's. A stage: seconds of one part of a served call, as a graph. Without a GPU
it runs all the same, on the host's clock, and shows only that it runs.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))
from effbench.plan.origins import mount, own_origin

mount(own_origin())

from effbench_implementations.experts import dropless, routing  # noqa: E402
from effbench_implementations.experts.expert_choice import Choice  # noqa: E402
from effbench_implementations.experts.top_2 import TokenChoice  # noqa: E402
from effbench_implementations.shared.transformer import FeedForward, feed_forward_flops  # noqa: E402

from effbench.measure.cuda import device_turn, graph_turn  # noqa: E402


def seconds(call, batches, kind: str, sample: float) -> tuple[float | None, str]:
    """Median over samples, or None and why."""
    if not torch.cuda.is_available():
        call(batches[0])
        start = time.perf_counter()
        call(batches[0])
        return time.perf_counter() - start, ""
    if kind == "plain":
        turn, reason = device_turn(call, batches, seconds=sample), ""
    else:
        turn, reason = graph_turn(call, batches, seconds=sample)
    return (float(torch.tensor(turn.device).median()), "") if turn else (None, reason)


def layers(d: int, width: int, tokens: int, counts):
    """(name, settings, module, useful FLOPs); modules on the GPU, in bfloat16."""
    active = feed_forward_flops(tokens, d, 2 * width)
    yield "dense", {}, FeedForward(d, 2 * width), active
    for count in counts:
        useful = active + 2.0 * tokens * d * count
        for grouped in (True, False):
            settings = {"experts": count, "kernel": "grouped" if grouped else "padded"}
            yield "top-2", settings, TokenChoice(d, width, count, 1.25, 2.0, 0.0, grouped=grouped), useful
        taken = min(tokens, routing.slots(2.0, tokens, count))
        yield "expert-choice", {"experts": count}, Choice(d, width, count, lambda n, taken=taken: taken), useful


def stages(layer, x):
    """(name, call) of the parts of a served call, each on what the parts before it gave."""
    n, experts, count = len(x), layer.experts, len(layer.experts.up)
    logits = routing.logits(layer.gate, x)
    yield "gate", lambda: routing.logits(layer.gate, x)
    if isinstance(layer, Choice):
        chances = torch.softmax(logits, -1)
        weight, token = chances.T.topk(layer.taken(n), -1, sorted=False)
        flat = token.flatten()
        rows = x.index_select(0, flat).view(count, -1, x.shape[1])
        y = experts(rows).flatten(0, 1)
        row, start = dropless.by_token(flat, n)
        yield "choose", lambda: torch.softmax(logits, -1).T.topk(layer.taken(n), -1, sorted=False)
        yield "gather", lambda: x.index_select(0, flat)
        yield "products", lambda: experts(rows)
        yield "sort", lambda: dropless.by_token(flat, n)
        yield "combine", lambda: dropless.combine(y, row, weight.flatten()[row], n, start=start)
        return
    expert, weight = dropless.two_best(logits)
    ends, token, place = dropless.by_expert(expert, count)
    rows = x.index_select(0, token)
    y = dropless.products(rows, ends, experts)
    yield "choose", lambda: dropless.two_best(logits)
    yield "sort", lambda: dropless.by_expert(expert, count)
    yield "gather", lambda: x.index_select(0, token)
    yield "products", lambda: dropless.products(rows, ends, experts)
    yield "combine", lambda: dropless.combine(y, place, weight.flatten(), n, each=2)


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--d", type=int, default=1024)
    parser.add_argument("--widths", type=int, nargs="+", default=[2048, 4096])
    parser.add_argument("--tokens", type=int, default=16384)
    parser.add_argument("--experts", type=int, nargs="+", default=[8, 64])
    parser.add_argument("--seconds", type=float, default=0.3, help="of each measurement")
    args = parser.parse_args(argv)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    title = torch.cuda.get_device_name() if device == "cuda" else "cpu"
    print(json.dumps({"device": title, "torch": torch.__version__, "d": args.d, "tokens": args.tokens}))
    with torch.no_grad(), torch.device(device):
        torch.manual_seed(0)
        batches = [torch.randn(args.tokens, args.d, dtype=torch.bfloat16) for _ in range(3)]
        for width in args.widths:
            dense = {}
            for name, settings, made, useful in layers(args.d, width, args.tokens, args.experts):
                layer = made.to(torch.bfloat16).eval()
                row = {"layer": name, "width": width, **settings}
                for kind in ("plain", "graph"):
                    taken, reason = seconds(layer, batches, kind, args.seconds)
                    if taken is None:
                        row[kind] = reason
                        continue
                    rate = useful / taken
                    dense.setdefault(kind, rate)
                    row[kind] = {"s": taken, "flops_per_s": rate, "of_dense": round(rate / dense[kind], 3)}
                if name != "dense":
                    row["shares"] = {share: round(float(value), 4) for share, value in layer.shares().items()}
                print(json.dumps(row), flush=True)
                if name == "dense" or settings.get("kernel") == "padded":
                    continue
                for stage, call in stages(layer, batches[0]):
                    taken, reason = seconds(lambda batch, call=call: call(), batches[:1], "graph", 0.05)
                    print(json.dumps({"stage": stage, "layer": name, "width": width, **settings, "s": taken or reason}), flush=True)


if __name__ == "__main__":
    main()
