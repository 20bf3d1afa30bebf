// The plot of any two metrics, drawn from the rows of the table that its filters leave; the band is where the front may lie.
"use strict";
(function () {
  const LEGEND = 16;
  const escape = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;").replace(/%\{/g, "% {");

  function option(select, value, text, chosen) {
    const made = document.createElement("option");
    made.value = value;
    made.textContent = text;
    made.selected = chosen;
    select.append(made);
  }

  const number = (cell, end) => (cell.dataset[end] === undefined ? NaN : Number(cell.dataset[end]));

  // Corners along the front: no other point is as good in both and better in one.
  function front(points, good) {
    const order = points.slice().sort((a, b) => good[0] * (b[0] - a[0]) || good[1] * (b[1] - a[1]));
    const kept = [];
    let best = -Infinity;
    for (const point of order) if (good[1] * point[1] > best) { best = good[1] * point[1]; kept.push(point); }
    return kept;
  }

  // A staircase: between two points of the front only the worse of both is known to be reached.
  function stairs(corners, good, far) {
    if (!corners.length) return { x: [], y: [] };
    const x = [corners[0][0]], y = [far[1]];
    corners.forEach((corner, index) => {
      if (index) { x.push(corner[0]); y.push(corners[index - 1][1]); }
      x.push(corner[0]);
      y.push(corner[1]);
    });
    x.push(far[0]);
    y.push(corners[corners.length - 1][1]);
    return { x, y };
  }

  function ticks(low, high, unit) {
    const base = unit === "B" ? 2 : 10, log = (v) => Math.log(v) / Math.log(base);
    const first = Math.floor(log(low) + 1e-9), last = Math.ceil(log(high) - 1e-9), every = Math.max(1, Math.ceil((last - first) / 7));
    const steps = base === 10 && high / low <= 60 ? [1, 2, 5] : [1], values = [];
    for (let power = first; power <= last; power += every) for (const step of steps) values.push(base ** power * step);
    const kept = values.filter((v) => v >= low / 1.6 && v <= high * 1.6);
    return { tickvals: kept, ticktext: kept.map((v) => effbench.number(v, unit, 3)) };
  }

  function axis(choice, values) {
    const low = Math.min(...values), high = Math.max(...values);
    const arrow = choice.better === "higher" ? " ↑" : choice.better === "lower" ? " ↓" : "";
    const title = { text: escape(choice.label + arrow) };
    if (low > 0 && high > 5 * low && !choice.name.startsWith("quality.")) return { title, type: "log", ...ticks(low, high, choice.unit) };
    if (choice.unit === "s" || choice.unit === "B" || choice.unit === "FLOP") {
      // Linear axes of few orders: plotly's own ticks with a prefix.
      return { title: { text: `${title.text} (${choice.unit})` }, exponentformat: "SI" };
    }
    return { title, exponentformat: "SI" };
  }

  function ready() {
    const block = document.getElementById("explore-data"), place = document.getElementById("explore");
    const board = effbench.boards.get("board");
    if (!block || !board || typeof Plotly === "undefined") return;
    const data = JSON.parse(block.textContent), tools = document.getElementById("explore-tools");
    const selects = ["x", "y"].map((name) => tools.querySelector(`[data-axis="${name}"]`));
    selects.forEach((select, which) => data.choices.forEach((choice, index) => option(select, index, choice.name, choice.name === (which ? data.y : data.x))));
    const heads = board.heads.map((head) => head.title.split(":")[0]), caseAt = heads.indexOf("case");
    const cases = tools.querySelector("[data-case]");
    const known = caseAt < 0 ? [] : [...new Set(board.rows.map((row) => row.cells[caseAt].textContent))];
    cases.parentElement.hidden = known.length < 2;
    known.forEach((name, index) => option(cases, name, name, index === 0));
    const methods = [...new Set(board.rows.map((row) => row.cells[0].dataset.v))].sort((a, b) => (a < b ? -1 : a > b ? 1 : 0));
    const labelled = heads.map((name, index) => [name, index]).filter(([name]) => ["settings", "case", "budget", "backend"].includes(name));

    function points(choice) {
      return board.shown.filter((row) => known.length < 2 || row.cells[caseAt].textContent === cases.value).map((row) => {
        const cells = choice.map((each) => row.cells[each.index]), value = cells.map((cell) => number(cell, "v"));
        const low = cells.map((cell, i) => { const end = number(cell, "l"); return end === end ? end : value[i]; });
        const high = cells.map((cell, i) => { const end = number(cell, "h"); return end === end ? end : value[i]; });
        return { row, value, low, high };
      }).filter((point) => point.value.every((v) => v === v));
    }

    function draw() {
      const choice = selects.map((select) => data.choices[Number(select.value)]);
      const found = points(choice), good = choice.map((each) => (each.better === "higher" ? 1 : -1)), traces = [];
      if (found.length > 1) {
        const end = (k) => found.flatMap((point) => [point.low[k], point.high[k]]).filter((v) => v > 0 || !found.every((p) => p.value[k] > 0));
        const far = [0, 1].map((k) => (good[k] > 0 ? Math.min(...end(k)) : Math.max(...end(k))));
        const corner = (point, sure) => [0, 1].map((k) => ((good[k] > 0) === sure ? point.low[k] : point.high[k]));
        const worst = stairs(front(found.map((point) => corner(point, true)), good, far), good, far);
        const hope = stairs(front(found.map((point) => corner(point, false)), good, far), good, far);
        const band = { x: [...worst.x, ...hope.x.slice().reverse()], y: [...worst.y, ...hope.y.slice().reverse()] };
        traces.push({ type: "scatter", mode: "lines", ...band, fill: "toself", fillcolor: "rgba(140,140,140,0.22)", line: { width: 0 }, name: "front, within intervals", hoverinfo: "skip" });
        traces.push({ type: "scatter", mode: "lines", ...stairs(front(found.map((point) => point.value), good), good, far), line: { color: "#8c8c8c", width: 1.5, dash: "dot" }, name: "Pareto front", hoverinfo: "skip" });
      }
      const present = [...new Set(found.map((point) => point.row.cells[0].dataset.v))];
      for (const method of present.sort((a, b) => methods.indexOf(a) - methods.indexOf(b))) {
        const own = found.filter((point) => point.row.cells[0].dataset.v === method).sort((a, b) => a.value[0] - b.value[0]);
        const [colour, symbol] = data.looks[method] || ["#8c8c8c", "circle"];
        const bar = (k) => ({ type: "data", symmetric: false, thickness: 1, width: 0, array: own.map((p) => p.high[k] - p.value[k]), arrayminus: own.map((p) => p.value[k] - p.low[k]) });
        const settings = (point) => labelled.map(([, index]) => point.row.cells[index].textContent).filter((text) => text && text !== "-").join(", ");
        traces.push({
          type: "scatter", mode: own.length > 1 && own.length < 40 ? "lines+markers" : "markers", name: escape(method), showlegend: present.length <= LEGEND,
          x: own.map((p) => p.value[0]), y: own.map((p) => p.value[1]), error_x: bar(0), error_y: bar(1),
          text: own.map((p) => [`<b>${escape(method)}</b> ${escape(settings(p))}`, ...choice.map((each) => `${escape(each.label)} ${escape(p.row.cells[each.index].textContent.replace("[", " ["))}`)].join("<br>")),
          hovertemplate: "%{text}<extra></extra>", line: { color: colour, width: 1 }, marker: { color: colour, symbol, size: present.length > 40 ? 6 : 9 },
        });
      }
      const axes = choice.map((each, k) => axis(each, found.length ? found.map((point) => point.value[k]) : [1, 1]));
      const layout = effbenchPlots.layout({ xaxis: axes[0], yaxis: axes[1], height: 460 });
      Plotly.react(place, traces, layout, effbenchPlots.settings).then(() => { place.dataset.drawn = "done"; });
    }

    // Drawn when near the view, and then after every change.
    let near = false, waiting = 0;
    const soon = () => { if (near && !waiting) waiting = requestAnimationFrame(() => { waiting = 0; draw(); }); };
    const watcher = new IntersectionObserver((entries) => { if (entries.some((entry) => entry.isIntersecting)) { near = true; watcher.disconnect(); soon(); } }, { rootMargin: "400px" });
    watcher.observe(place);
    [...selects, cases].forEach((select) => select.addEventListener("change", soon));
    document.addEventListener("themechange", soon);
    let before = board.shown.length;
    board.listeners.push(() => { if (board.shown.length !== before || board.shown.length !== board.rows.length) { before = board.shown.length; soon(); } });
  }

  document.addEventListener("boards", ready);
})();
