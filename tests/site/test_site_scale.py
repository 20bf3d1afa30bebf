"""What a site costs: 10,000 records over 200 methods and 6 machines."""

import subprocess
import sys
from pathlib import Path

import pytest

from effbench.study import synthetic

ROOT = Path(__file__).resolve().parents[2]


def build(tmp_path, n):
    folder = synthetic.write(tmp_path / f"many{n}", synthetic.many(n), machines=[synthetic.machine_name(i) for i in range(6)])
    site = tmp_path / f"site{n}"
    code = (
        "import resource, sys, time; from effbench.publish.site.build import publish\n"
        "publish(sys.argv[1:2], sys.argv[2])\n"
        "used = resource.getrusage(resource.RUSAGE_SELF); print(used.ru_utime + used.ru_stime, used.ru_maxrss * 1024)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(folder), str(site)], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    seconds, memory = map(float, done.stdout.split())
    return site, seconds, memory


@pytest.mark.slow
def test_ten_thousand_records(tmp_path):
    site, seconds, memory = build(tmp_path, 10_000)
    # Processor time: on a shared machine wall time is somebody else's.
    assert seconds < 30 and memory < 2**30
    sizes = {p.relative_to(site).as_posix(): p.stat().st_size for p in site.rglob("*") if p.is_file()}
    assert sum(sizes.values()) < 60e6
    page = (site / "index.html").read_text("utf-8")
    assert (
        sizes["index.html"]
        + sum(
            size
            for name, size in sizes.items()
            if name.startswith("assets/") and name.removeprefix("assets/") in page and "plotly" not in name
        )
        < 500_000
    )
    assert len({r["method"] for r in synthetic.many(10_000)}) == 200


@pytest.mark.slow
def test_cost_is_linear(tmp_path):
    _, small, _ = build(tmp_path, 2_000)
    _, large, _ = build(tmp_path, 8_000)
    assert large < 6 * small
