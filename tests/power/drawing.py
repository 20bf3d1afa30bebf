"""The proof as an SVG without any library: for each rule the share of comparisons that called a change, with its bounds."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

WIDTH, LEFT, RIGHT, ROW, HEAD = 860, 320, 96, 22, 74
COLOURS = {0: "#d6455d", 2: "#b8860b", 5: "#3d85c6", 10: "#1a9e77"}
NAMES = {0: "no change: false alarms", 2: "+2 %", 5: "+5 %", 10: "+10 %"}
STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#333}.h{font-weight:600}.n,.t{fill:#777;font-size:11px}.g{stroke:#ddd}"
    "@media(prefers-color-scheme:dark){text{fill:#ddd}.n,.t{fill:#aaa}.g{stroke:#444}}"
)


def place(share: float) -> float:
    return LEFT + share * (WIDTH - LEFT - RIGHT)


def pooled(rows: Sequence[dict]) -> list[dict]:
    """The row over all workloads where there is one, else the only workload's; by host, rule and true change."""
    best: dict[tuple, dict] = {}
    for row in rows:
        key = row["host"], row["rule"], row["extra"]
        if key not in best or row["workload"] == "all":
            best[key] = row
    return sorted(best.values(), key=lambda row: (row["host"], not row["rule"].startswith("effbench"), row["rule"], row["extra"]))


def svg(rows: Sequence[dict]) -> str:
    """Drawn from the rows of `tallies.all_rows`; the same rows give the same file."""
    rows, parts, y, host, rule = pooled(rows), [], float(HEAD), None, None
    for row in rows:
        if row["host"] != host:
            y += ROW * (1.6 if host else 0.6)
            parts.append(f'<text class="h" x="12" y="{y:.0f}">{escape(row["host"])}</text>')
            host, rule, y = row["host"], None, y + ROW
        if row["rule"] != rule:
            y += 6 if rule else 0
            parts.append(f'<text x="{LEFT - 12}" y="{y + 4:.0f}" text-anchor="end">{escape(row["rule"])}</text>')
            rule = row["rule"]
        colour, ends = COLOURS[row["extra"]], [place(row[name]) for name in ("low", "share", "high")]
        tip = f"{row['rule']}, {NAMES[row['extra']]}: {row['hits']} of {row['n']}, {row['low']:.1%} to {row['high']:.1%}"
        parts.append(
            f'<g><title>{escape(tip)}</title><line x1="{ends[0]:.1f}" x2="{ends[2]:.1f}" y1="{y:.0f}" y2="{y:.0f}" stroke="{colour}" '
            f'stroke-width="3" stroke-opacity="0.45"/><circle cx="{ends[1]:.1f}" cy="{y:.0f}" r="5" fill="{colour}"/></g>'
        )
        parts.append(f'<text class="n" x="{WIDTH - RIGHT + 14}" y="{y + 4:.0f}">{row["hits"]} of {row["n"]}</text>')
        y += ROW * 0.8
    if not rows:
        y += ROW
        parts.append(f'<text x="{WIDTH / 2:.0f}" y="{y:.0f}" text-anchor="middle">No comparisons are recorded yet.</text>')
    bottom = y + 8
    grid = "".join(
        f'<line class="g" x1="{place(step / 4):.1f}" x2="{place(step / 4):.1f}" y1="{HEAD}" y2="{bottom:.0f}"/>'
        f'<text class="t" x="{place(step / 4):.1f}" y="{HEAD - 6}" text-anchor="middle">{step * 25} %</text>'
        for step in range(5)
    )
    legend, x = [], 12
    for extra in dict.fromkeys(sorted(row["extra"] for row in rows)):
        legend.append(
            f'<circle cx="{x + 5}" cy="40" r="5" fill="{COLOURS[extra]}"/><text x="{x + 16}" y="44">{NAMES[extra]}</text>'
        )
        x += 32 + 7 * len(NAMES[extra])
    title = "Share of comparisons that called a change, by what truly changed (95 % Clopper-Pearson)"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {bottom + 14:.0f}" role="img" aria-label="{title}">\n'
        f'<style>{STYLE}</style>\n<text class="h" x="12" y="22">{title}</text>\n'
        + "\n".join([*legend, grid, *parts])
        + "\n</svg>\n"
    )
