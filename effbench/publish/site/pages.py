"""The pages of a site, each as a template and what it needs."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

from .. import format as fmt
from ..groups import Group, direction, machine
from ..plots import curve_plots, ratio_plot, scaling_plot
from ..roofs import roofline_plots
from ..tables import Cell, Column, Table
from . import claims as claiming
from . import links
from .boards import board, count, plain, quantity, text
from .content import Content, first_paragraph
from .equal import equal_table, forest, savings
from .roof import roofline
from .store import Store, write_table

LINES = 12  # methods drawn in one figure of lines
OPTIONAL = ("equal", "failed", "across", "claims")  # tables that a page may lack


class Pages:
    """Makes pages one after the other; tables go to `data/` beside them."""

    def __init__(self, content: Content, store: Store, fronts, render):
        self.content, self.store, self.fronts, self.render = content, store, fronts, render
        self.savings: dict[int, list] = {}

    def page(self, path: str, template: str, *, title: str, tables: dict[str, Table], plots=(), trail=(), **context: Any) -> None:
        root, shown = links.root(path), dict.fromkeys(OPTIONAL)
        for name, table in tables.items():
            stem = f"data/{path.removesuffix('.html')}-{name}"
            if table.lines:
                write_table(self.store, stem, table)
            shown[name] = {"table": table, "data": root + stem, "id": name}
        plots = [plot for plot in plots if plot]
        explore = context.get("explore")
        made = self.render(
            template, root=root, plots=bool(plots or explore), title=title, tables=shown, figures=plots,
            trail=[(name, root + link) for name, link in trail], here=path.split("/")[0].removesuffix(".html"),
            drawers=any(line.drawer for table in tables.values() for line in table.lines), **context,
        )  # fmt: skip
        self.store.write(path, made)

    # -- one task on one machine ------------------------------------------------------------------------------------------

    def setting(self, group: Group) -> None:
        content, path = self.content, links.setting(group.key)
        root, task = links.root(path), group.key["task"]
        link = lambda name: root + links.method(task, name)  # noqa: E731
        made = board(group, fronts=self.fronts, link=link, drawer=content.drawer, stale=content.stale)
        quality = content.quality(group)
        found = self.savings[id(group)] = savings(group, quality)
        tables = {"board": made}
        if found:
            tables["equal"] = equal_table(group, found, link)
        if group.failed:
            tables["failed"] = self.failures(group, link)
        few, style = fewer(group, quality), content.style(task)
        figures = [forest(group, found), ratio_plot(group, style), scaling_plot(few, style)]
        known = content.loaded.environments
        roof = roofline(group, known.get(group.key["environment"], {}), style)
        # Without bytes only the flat part of the roof can be drawn.
        figures += [*([roof] if roof else roofline_plots([group], known, style)), *curve_plots(few, style)]
        left_out = len({row.method for row in group.rows}) - len({row.method for row in few.rows})
        self.page(
            path, "setting.html.j2", title=short_title(group), tables=tables, plots=figures, explore=explorer(group, made, quality, self.fronts, style),
            trail=[(content.area_of[task], links.area(content.area_of[task])), (task, links.task(task))], caption=f"{group.key['data']}. {made.caption}",
            others=[(other.apart or other.key["data"], root + links.setting(other.key), other is group) for other in content.tasks[task]],
            left_out=left_out, lines=LINES, machine_link=root + f"machines.html#{links.anchor(group.key['environment'])}", machine=group.machine,
            tuning=sorted(Counter(record["method"] for record in group.tuning).items()),
            prepared=[(r["method"], str(r["seed"]), fmt.interval(r["readings"].get("build.time"))) for r in group.prepared],
        )  # fmt: skip

    def failures(self, group: Group, link) -> Table:
        columns = [Column(n, n, facet=n in ("case", "status")) for n in ("method", "case", "settings", "seed", "status", "reason")]
        rows = [
            [text(r["method"]), text(r["case"]), text(fmt.settings(r["params"] | r["knobs"])), count(r["seed"]), text(r["status"]),
             Cell(fmt.clean(r["reason"]) or fmt.MISSING, fmt.clean(r["reason"]))]
            for r in group.failed
        ]  # fmt: skip
        return plain(
            "Trials without a result", group.title, columns, rows, drawers=[self.content.drawer([r]) for r in group.failed]
        )

    # -- task, area -------------------------------------------------------------------------------------------------------

    def task(self, name: str) -> None:
        content, path = self.content, links.task(name)
        root, made, info = links.root(path), content.tasks[name], content.task(name)
        columns = [
            Column(n, n, facet=n in ("data", "size", "device", "machine"))
            for n in ("data", "size", "device", "machine", "threads", "methods")
        ]
        columns = [replace(c, numeric=c.name in ("threads", "methods")) for c in columns]
        columns += [Column("rows", "rows", True), Column("failed", "failed", True), Column("baseline", "baseline")]
        rows = []
        for group in made:
            methods = {row.method for row in group.rows}
            first = text(group.key["data"], href=root + links.setting(group.key))
            rows.append([
                first, text(group.key["size"]), text(group.key["device"]), text(group.machine, href=root + f"machines.html#{links.anchor(group.key['environment'])}"),
                count(group.key["threads"]), count(len(methods)), count(len(group.rows)), count(len(group.failed)), text(group.baseline),
            ])  # fmt: skip
        tables = {"settings": plain("Where it was measured", "Each line is a page.", columns, rows)}
        facts = []
        if info:
            metrics = ", ".join(f"{m} ({v.better} is better)" for m, v in info.metrics.items())
            facts = [
                ("metrics", metrics),
                ("baselines", ", ".join(info.baselines)),
                ("cases", ", ".join(c.name for c in info.cases)),
                ("phases", ", ".join(info.phases)),
            ]
        across = self.across(made, root)
        if across.lines:
            tables["across"] = across
        own = sorted({method for task, method in content.methods if task == name})
        self.page(
            path, "task.html.j2", title=name, tables=tables, trail=[(content.area_of[name], links.area(content.area_of[name]))],
            idea=first_paragraph(info.doc) if info else "", facts=[(k, v) for k, v in facts if v], known=info is not None,
            methods=[(m, root + links.method(name, m), self.idea(name, m)) for m in own],
        )  # fmt: skip

    def idea(self, task: str, method: str) -> str:
        info = self.content.method(task, method)
        return first_paragraph(info.doc) if info else ""

    def across(self, made: list[Group], root: str) -> Table:
        """Savings on every machine: each ratio is to the baseline of the same machine, so that machines are never ranked."""
        columns = [
            Column(n, n, facet=n not in ("ratio",)) for n in ("method", "data", "size", "device", "machine", "case", "cost", "how")
        ]
        columns.append(Column("ratio", "ratio", True, "lower", unit="×"))
        rows = []
        from .equal import SHARES, ratio_cell

        for group in made:
            for saving in self.savings.get(id(group), ()):
                pairs = zip((saving.average, *saving.at), ("average", *(label for _, label in SHARES)))
                one, how = next(((one, how) for one, how in pairs if one.known), (None, ""))
                if one:
                    key = group.key
                    rows.append([
                        text(saving.method, href=root + links.method(key["task"], saving.method)), text(key["data"]), text(key["size"]), text(key["device"]),
                        text(group.machine), text(saving.case), text(saving.cost), text(how), ratio_cell(one),
                    ])  # fmt: skip
        return plain(
            "Cost at equal quality, on every machine", "Over the baseline on the same machine; below 1 is cheaper.", columns, rows
        )

    def area(self, name: str) -> None:
        path, content = links.area(name), self.content
        self.page(path, "area.html.j2", title=name, tables={"tasks": self.tasks_table(links.root(path), [name])}, trail=(), methods=[
            (task, method, links.root(path) + links.method(task, method), self.idea(task, method))
            for task in content.areas[name] for method in sorted(m for t, m in content.methods if t == task)
        ])  # fmt: skip

    def tasks_table(self, root: str, areas: list[str]) -> Table:
        content = self.content
        columns = [
            Column("area", "area", facet=True),
            Column("task", "task"),
            *(Column(n, n, True) for n in ("methods", "machines", "rows", "failed")),
            Column("claims", "claims"),
        ]
        rows = []
        for area in areas:
            for task, made in content.areas[area].items():
                verdicts = Counter(c["verdict"] for c in content.claims if c["task"] == task)
                shown = ", ".join(f"{verdicts[v]} {v}" for v in claiming.ORDER if verdicts[v])
                rows.append([
                    text(area, href=root + links.area(area)), text(task, href=root + links.task(task)),
                    count(len({m for t, m in content.methods if t == task})), count(len({g.key["environment"] for g in made})),
                    count(sum(len(g.rows) for g in made)), count(sum(len(g.failed) for g in made)), text(shown),
                ])  # fmt: skip
        return plain("Tasks", "One line a task.", columns, rows)

    # -- method -----------------------------------------------------------------------------------------------------------

    def method(self, task: str, name: str) -> None:
        content, path = self.content, links.method(task, name)
        root, records, info = links.root(path), content.methods[task, name], content.method(task, name)
        claims = [c for c in content.claims if c["method"] == name and c["task"] == task]
        tables = {"records": self.records_table(records, root)}
        if claims:
            tables["claims"] = claiming.claims_table(claims, root, self.machine, drop=("method", "task"))
        states = Counter(content.stale([r])[0] for r in records)
        facts = [
            (
                "records",
                f"{len(records)}: " + ", ".join(f"{n} {s}" for s, n in sorted(Counter(r["status"] for r in records).items())),
            )
        ]
        facts.append(("sources", ", ".join(f"{n} {s}" for s, n in sorted(states.items()))))
        facts.append(("commits", ", ".join(sorted({r["commit"][:12] for r in records})[:8])))
        source, place, settings = "", "", []
        if info:
            place = f"{info.file.origin.folder.name}/{info.file.path.relative_to(info.file.origin.folder).as_posix()}"
            source = info.file.path.read_text("utf-8", "replace")
            facts = [("back end", info.backend), ("version", str(info.version)), ("file", place), *facts]
            settings = [
                (key, s.kind, fmt.clean(s.default), fmt.clean(list(s.sweep)) if s.sweep else "", fmt.clean(repr(s.tune)) if s.tune else "")
                for key, s in info.settings.items()
            ]  # fmt: skip
        commit = next((r["commit"].removesuffix("-dirty") for r in sorted(records, key=lambda r: r["time"], reverse=True)), "")
        self.page(
            path, "method.html.j2", title=name, tables=tables, trail=[(content.area_of[task], links.area(content.area_of[task])), (task, links.task(task))],
            facts=facts, doc=info.doc if info else "", known=info is not None, source=source, settings=settings, changed=states["stale"] > 0,
            place=place, commit=commit, claimed=bool(info and info.claims),
        )  # fmt: skip

    def records_table(self, records: list[dict], root: str) -> Table:
        names = headline(records)
        columns = [
            Column(n, n, facet=n in ("data", "size", "device", "machine", "case", "status", "role"))
            for n in ("seed", "data", "size", "device", "machine", "case", "settings", "role", "status")
        ]
        columns += [Column(n, n.removeprefix("quality.").removeprefix("serve."), True, direction(n)) for n in names]
        columns.append(Column("sources", "sources", facet=True))
        rows, drawers = [], []
        for r in records:
            state, why = self.content.stale([r])
            cells = [
                count(r["seed"]), text(r["data"], href=root + links.setting({n: r[n] for n in ("task", "data", "size", "device", "threads", "environment")})),
                text(r["size"]), text(r["device"]), text(self.machine(r["environment"])), text(r["case"]), text(fmt.settings(r["params"] | r["knobs"])),
                text(r["role"]), text(r["status"], why=r["reason"]),
            ]  # fmt: skip
            rows.append([*cells, *(quantity(r["readings"].get(n)) for n in names), text(state, why=why)])
            drawers.append(self.content.drawer([r]))
        keep = [
            i
            for i, c in enumerate(columns)
            if c.numeric or len({row[i].text for row in rows}) > 1 or c.name in ("data", "machine", "sources")
        ]
        keep = [0, *(i for i in keep if i)]
        return plain("Records", "One line a record; its seed opens everything that was recorded.", [columns[i] for i in keep],
                     [[row[i] for i in keep] for row in rows], drawers=drawers)  # fmt: skip

    def machine(self, environment: str) -> str:
        return machine(environment, self.content.loaded.environments)


def short_title(group: Group) -> str:
    key = group.key
    return f"{key['task']} on {key['data'].split('(')[0]}, {key['size']}, {key['device']}"


def headline(records: list[dict]) -> list[str]:
    present = {n for r in records for n, reading in r["readings"].items() if reading["value"] is not None}
    qualities = sorted(n for n in present if n.startswith("quality."))[:3]
    return qualities + [n for n in ("serve.latency", "serve.flops", "build.time", "build.flops", "size.bytes") if n in present]


def fewer(group: Group, quality: str) -> Group:
    """The group with the baseline and the best methods only, as many as one figure can show."""
    methods = sorted({row.method for row in group.rows})
    if len(methods) <= LINES:
        return group
    sign = 1 if group.better.get(quality) == "higher" else -1
    best = {
        m: max(
            (sign * row.value(quality) for row in group.rows if row.method == m and row.value(quality) is not None), default=-1e300
        )
        for m in methods
    }
    kept = set(sorted(methods, key=lambda m: (m != group.baseline, -best[m], m))[:LINES])
    return replace(group, rows=tuple(row for row in group.rows if row.method in kept))


def explorer(group: Group, made: Table, quality: str, fronts, style) -> dict | None:
    """What the plot of any two metrics needs besides the table: places of its columns, and what to show first."""
    from ..fronts import pairs

    choices = [
        {
            "index": i + 1,
            "name": c.name,  # the rank stands second
            "label": c.label,
            "better": c.better,
            "unit": c.unit,
        }
        for i, c in enumerate(made.columns)
        if c.numeric and any(line.cells[i].raw is not None for line in made.lines)
    ]
    names = [choice["name"] for choice in choices]
    if len(names) < 2 or len(made.lines) < 2:
        return None
    pair = next((p for p in pairs(group, fronts) if set(p) <= set(names)), None)
    if not pair:
        cost = next((n for n in ("serve.latency", "serve.throughput", "build.time", "build.flops") if n in names), names[-1])
        pair = (cost, quality if quality in names else names[0])
    elif pair[0].startswith("quality.") and not pair[1].startswith("quality."):
        pair = (pair[1], pair[0])  # quality upwards, cost to the right
    methods = {row.method for row in group.rows}
    looks = {fmt.clean(method): [style.colour(method), style.symbol(method)] for method in sorted(methods)}
    return {"choices": choices, "x": pair[0], "y": pair[1], "looks": looks}
