"""One benchmark for pyperf with its defaults."""

import peer_work
import pyperf


def pass_on(command, given):
    command.extend(("--workload", given.workload, "--extra", str(given.extra)))


runner = pyperf.Runner(add_cmdline_args=pass_on)
runner.argparser.add_argument("--workload")
runner.argparser.add_argument("--extra", type=int)
_given = runner.parse_args()
runner.bench_func(_given.workload, peer_work.make(_given.workload, _given.extra))
