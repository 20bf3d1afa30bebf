"""`effbench publish`: record folders in, a folder of pages out. What is damaged is named, and the rest is published."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ...api.record import STATUSES
from ...study import synthetic
from ...study.merge import gather, joined, latest
from ...study.records import Loaded
from .. import format as fmt
from ..groups import Directions, machine
from ..page import PLOTLY, SITE_SCRIPTS, asset, render_site
from ..report import flat
from ..tables import suite_fronts
from . import claims as claiming
from . import links
from .boards import count, plain, text
from .content import Content, registry_or_none
from .pages import Pages
from .store import Store

ASSETS = (PLOTLY, "plotly-LICENSE.txt", "plots.js", *SITE_SCRIPTS, "page.css", "site.css")


@dataclass(frozen=True)
class Published:
    """`problems` name what was left out or is odd; the exit code is 1 where there are any."""

    index: Path
    records: int
    pages: int
    bytes: int
    problems: tuple[str, ...]

    @property
    def code(self) -> int:
        return 1 if self.problems else 0


Judge = Callable[[Loaded, object], Sequence[dict]]


def publish(
    paths: Iterable[str | Path], out: str | Path, *, judge: Judge | None = None, better: Directions | None = None
) -> Published:
    """Write the site of these folders to `out`. RecordError where no record can be read at all.

    judge: makes claims with verdicts of (records, registry), see `claims.FIELDS`; by default `study.claims` does.
    better: directions of qualities that their names do not tell.
    """
    runs, problems = gather([Path(path) for path in paths])
    registry, missing = registry_or_none()
    problems += missing
    if registry and better is None:
        better = registry.directions()
    loaded = joined(runs)
    loaded = replace(loaded, records=latest(loaded.records))
    problems += loaded.problems
    if not any(record["role"] == "measure" and record["status"] in ("ok", "unstable") for record in loaded.records):
        problems.append("no trial of these records has a result: the site holds only failures")
    content = Content(loaded, registry, [], better or {})
    content.claims = claiming.sound(verdicts(loaded, registry, judge or claiming.judged, problems))
    for claim in content.claims:
        claim["pages"] = (claim["task"], claim["method"]) in content.methods
    fronts = sorted({tuple(pair) for run in runs for pair in suite_fronts(run)})
    store = Store(Path(out))
    pages = Pages(content, store, fronts, render_site)
    for group in content.groups:
        pages.setting(group)
    for task in content.tasks:
        pages.task(task)
    for area in content.areas:
        pages.area(area)
    for task, method in content.methods:
        pages.method(task, method)
    shared(pages, content, problems)
    content.shards.write(store)
    for name in ASSETS:
        store.write(f"assets/{name}", asset(name))
    store.finish()
    htmls = sum(name.endswith(".html") for name in store.sizes)
    return Published(
        store.out / "index.html", len(loaded.records), htmls, sum(store.sizes.values()), tuple(dict.fromkeys(problems))
    )


def verdicts(loaded: Loaded, registry, judge: Judge, problems: list[str]) -> Sequence[dict]:
    """What the judge says; where foreign records make it fail, the claims are listed untested and the failure is named."""
    if registry is None:
        return []
    try:
        return judge(loaded, registry)
    except Exception as error:
        problems.append(
            f"claims could not be judged ({type(error).__name__}: {fmt.clean(error, 200)}); they are listed as not tested"
        )
        return claiming.untested(registry)


def shared(pages: Pages, content: Content, problems: list[str]) -> None:
    """The pages of the whole site: front, claims, machines."""
    records = content.loaded.records
    statuses = {status: sum(record["status"] == status for record in records) for status in STATUSES}
    times = sorted(record["time"] for record in records)
    counts = content.counts()
    picture = claiming.picture(content.claims, pages.machine)
    facts = [
        ("techniques", str(len(content.methods))), ("tasks", str(len(content.tasks))),
        ("machines", ", ".join(content.machines(records)[:6])), ("records", f"{len(records)}: " + ", ".join(f"{n} {s}" for s, n in statuses.items() if n)),
        ("measured", times[0][:10] if times[0][:10] == times[-1][:10] else f"{times[0][:10]} to {times[-1][:10]}"),
        ("claims", ", ".join(f"{counts[v]} {v}" for v in (*claiming.ORDER, *sorted(set(counts) - set(claiming.ORDER))) if v in counts) or "none"),
    ]  # fmt: skip
    pages.page(
        "index.html", "index.html.j2", title="What holds, on these machines", tables={"tasks": pages.tasks_table("", sorted(content.areas))},
        plots=[picture], facts=facts, problems=problems, synthetic=any(r["suite"] == synthetic.NAME for r in records), notes=content.loaded.notes[:50],
    )  # fmt: skip
    table = claiming.claims_table(content.claims, "", pages.machine)
    everything = claiming.picture(content.claims, pages.machine, claiming.ALL)
    pages.page(
        "claims.html", "claims.html.j2", title="Claims", tables={"claims": table}, plots=[replace_title(everything)], counts=counts
    )
    pages.page(
        "machines.html",
        "machines.html.j2",
        title="Machines",
        tables={"machines": machines_table(content)},
        machines=machines(content),
    )


def replace_title(picture):
    return replace(picture, title="Promised and measured, claim by claim") if picture else None


def machines(content: Content) -> list[tuple[str, str, list, int]]:
    """(anchor, name, facts, records) of each environment."""
    found = []
    for key in sorted({record["environment"] for record in content.loaded.records} | set(content.loaded.environments)):
        facts = flat(content.loaded.environments.get(key, {}))
        number = sum(record["environment"] == key for record in content.loaded.records)
        found.append((links.anchor(key), machine(key, content.loaded.environments), [("key", key), *facts], number))
    return found


def machines_table(content: Content):
    from ..tables import Column

    columns = [
        Column("machine", "machine"),
        Column("device", "device", facet=True),
        *(Column(n, n, True) for n in ("cores", "threads", "records", "failed")),
    ]
    columns += [Column(n, n) for n in ("noise", "roof", "software")]
    rows = []
    for key in sorted({record["environment"] for record in content.loaded.records}):
        facts = content.loaded.environments.get(key, {})
        own = [record for record in content.loaded.records if record["environment"] == key]
        versions = facts.get("versions")
        software = " ".join(f"{name} {version}" for name, version in sorted(versions.items())) if isinstance(versions, dict) else ""
        rows.append([
            text(machine(key, content.loaded.environments), href=f"#{links.anchor(key)}"), text(", ".join(sorted({r["device"] for r in own}))),
            whole(facts.get("cores")), whole(facts.get("threads")), count(len(own)),
            count(sum(r["status"] not in ("ok", "unstable") for r in own)), text(noise(facts)), text(roofs(facts)), text(software),
        ])  # fmt: skip
    return plain("Machines", "Rows of different machines never share a table or a rank.", columns, rows)


def whole(value):
    from ..tables import Cell

    return count(value) if isinstance(value, int) and not isinstance(value, bool) else Cell(fmt.MISSING, None, why="not recorded")


def noise(facts: dict) -> str:
    """The A/A floor: by how much equal code may seem to differ here, where `effbench doctor --calibrate` asked."""
    roofs = facts.get("roofs")
    found = roofs.get("floor") if isinstance(roofs, dict) else None
    shares = {name: value for name, value in found.items() if isinstance(value, (int, float))} if isinstance(found, dict) else {}
    return ", ".join(f"{fmt.clean(name, 30)} ±{value:.1%}" for name, value in sorted(shares.items())[:6]) or "not measured"


def roofs(facts: dict) -> str:
    from .roof import roof

    found = roof(facts)
    return f"{fmt.number(found[0], 'FLOP/s')}, {fmt.number(found[1], 'B')}/s" if found else "not calibrated"
