// The records behind a row: readings, samples, settings, digests and the command that makes them again. Text goes in as text.
"use strict";
(function () {
  window.effbenchShards = {};
  const PREFIXES = [[1e18, "E"], [1e15, "P"], [1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"], [1, ""]];
  const SMALL = [[1, ""], [1e-3, "m"], [1e-6, "µ"], [1e-9, "n"]];
  const BINARY = [[2 ** 40, "TiB"], [2 ** 30, "GiB"], [2 ** 20, "MiB"], [2 ** 10, "KiB"], [1, "B"]];

  function scale(value, unit) {
    const size = Math.abs(value);
    if (unit === "B") return BINARY.find(([factor]) => size >= factor) || [1, "B"];
    if (unit === "s" && size >= 120) return size >= 7200 ? [3600, "h"] : [60, "min"];
    if (unit === "" || unit === "1" || unit === "×") { const [f, p] = PREFIXES.find(([factor]) => size >= factor && factor >= 1e6) || [1, ""]; return [f, p + (unit === "×" ? "×" : "")]; }
    const [factor, prefix] = (size >= 1 || size === 0 ? PREFIXES : SMALL).find(([each]) => size >= each) || (size === 0 ? [1, ""] : SMALL[3]);
    return [factor, unit.startsWith("1/") ? prefix + unit.slice(1) : prefix + unit];
  }

  effbench.number = function (value, unit = "", places = 4) {
    if (typeof value !== "number" || !isFinite(value)) return "-";
    const [factor, name] = scale(value, unit), shown = Number((value / factor).toPrecision(places));
    return `${shown} ${name}`.trim();
  };

  function make(tag, text, parent) {
    const node = document.createElement(tag);
    if (text !== undefined) node.textContent = visible(String(text));
    if (parent) parent.append(node);
    return node;
  }

  // Control and direction characters are shown, never obeyed.
  const visible = (text) => text.slice(0, 4000).replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200e\u200f\u061c\u202a-\u202e\u2066-\u2069\u2028\u2029\ufeff\ud800-\udfff]/gu, (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}`);

  function list(parent, pairs) {
    const made = make("dl", undefined, parent);
    for (const [name, value] of pairs) {
      if (value === undefined || value === "" || value === null || (typeof value === "object" && !Object.keys(value).length)) continue;
      make("dt", name, made);
      make("dd", typeof value === "object" ? Object.entries(value).map(([k, v]) => `${k}=${typeof v === "object" ? JSON.stringify(v) : v}`).join(" ") : value, made);
    }
    return made;
  }

  function readings(parent, record) {
    const box = make("div", undefined, parent);
    box.className = "scroll";
    box.tabIndex = 0;
    const table = make("table", undefined, box), head = make("tr", undefined, make("thead", undefined, table)), body = make("tbody", undefined, table);
    for (const name of ["reading", "value", "interval", "n", "how"]) make("th", name, head).scope = "col";
    for (const [name, reading] of Object.entries(record.readings)) {
      const row = make("tr", undefined, body), title = make("th", name, row), unit = String(reading.unit);
      title.scope = "row";
      make("td", reading.value === null ? "-" : effbench.number(reading.value, unit), row).className = "number";
      const ends = reading.low === undefined ? "" : `${effbench.number(reading.low, unit)} to ${effbench.number(reading.high, unit)}`;
      make("td", ends, row).className = "short";
      make("td", reading.n === undefined ? "" : reading.n, row).className = "number";
      make("td", reading.value === null ? reading.reason : reading.how || "", row);
    }
  }

  // One dot a sample in the order they were taken, over the range of the samples.
  function strip(parent, values) {
    const space = "http://www.w3.org/2000/svg", svg = document.createElementNS(space, "svg");
    const low = Math.min(...values), high = Math.max(...values), span = high - low || 1;
    svg.setAttribute("viewBox", "0 0 300 44");
    svg.setAttribute("class", "strip");
    svg.setAttribute("role", "img");
    svg.setAttribute("aria-label", `${values.length} samples from ${low} to ${high}`);
    values.forEach((value, index) => {
      const dot = document.createElementNS(space, "circle");
      dot.setAttribute("cx", String(4 + (292 * index) / Math.max(values.length - 1, 1)));
      dot.setAttribute("cy", String(40 - (36 * (value - low)) / span));
      dot.setAttribute("r", "2");
      svg.append(dot);
    });
    parent.append(svg);
  }

  function samples(parent, record) {
    for (const [name, values] of Object.entries(record.samples || {})) {
      if (!values.length) continue;
      const box = make("details", undefined, parent);
      make("summary", `${values.length} samples of ${name}`, box);
      strip(box, values);
      make("p", values.join("  "), box).className = "raw";
    }
  }

  function replay(parent, record) {
    make("h3", "Make it again", parent);
    const text = record.replay.join("\n"), block = make("pre", text, parent);
    block.className = "replay";
    block.tabIndex = 0;
    if (navigator.clipboard && isSecureContext) {
      const button = make("button", "Copy", parent);
      button.type = "button";
      button.addEventListener("click", () => navigator.clipboard.writeText(text).then(() => { button.textContent = "Copied"; }, () => { button.textContent = "Select the text above"; }));
    }
    if (record.remark) make("p", record.remark, parent).className = "caption";
  }

  function section(parent, record, root, open) {
    const box = make("details", undefined, parent);
    box.open = open;
    make("summary", `seed ${record.seed}${record.case ? `, ${record.case}` : ""}: ${record.status}${record.stale === "current" ? "" : `, sources ${record.stale}`}`, box);
    if (record.reason) make("p", record.reason, box).className = "warning";
    readings(box, record);
    samples(box, record);
    replay(box, record);
    make("h3", "Where it comes from", box);
    const facts = list(box, [
      ["role", record.role], ["params", record.params], ["knobs", record.knobs], ["budget", record.budget], ["tuning", record.tuning], ["data", record.data],
      ["dtype", record.dtype], ["threads", record.threads], ["baseline", record.baseline], ["sources", `${record.stale}: ${record.why}`], ["commit", record.commit],
      ["source tree", record.tree], ["files loaded", record.loaded], ["data digest", record.data_digest], ["content key", record.key], ["group", record.group],
      ["measuring", `version ${record.measure_version}`], ["time", record.time], ["notes", (record.notes || []).map((note) => (typeof note === "string" ? note : JSON.stringify(note))).join("; ")],
    ]);
    make("dt", "machine", facts);
    const link = make("a", record.machine, make("dd", undefined, facts));
    link.href = `${root}machines.html#${encodeURIComponent(record.anchor)}`;
  }

  function load(name, root) {
    if (effbenchShards[name]) return Promise.resolve();
    return new Promise((done, failed) => {
      const script = document.createElement("script");
      script.src = `${root}records/${name}.js`;
      script.onload = done;
      script.onerror = () => failed(new Error(`records/${name}.js cannot be read`));
      document.head.append(script);
    });
  }

  async function open(row) {
    const [name, places] = row.dataset.d.split(":"), root = document.getElementById("shards").dataset.root;
    const dialog = document.getElementById("window"), body = document.getElementById("window-body");
    body.replaceChildren();
    document.getElementById("window-title").textContent = `${document.querySelector("h1").textContent}: ${row.dataset.name}`;
    dialog.showModal();
    // A foreign name never becomes a path: names of shards are made of these characters alone.
    if (!/^[a-z0-9-]+$/.test(name)) return;
    try {
      await load(name, root);
      const records = places.split(",").map((place) => ({ ...effbenchShards[name].common, ...effbenchShards[name].records[Number(place)] }));
      records.forEach((record, index) => section(body, record, root, index === 0));
    } catch (error) {
      make("p", error.message, body).className = "warning";
    }
    body.dataset.ready = row.dataset.d;
  }

  effbench.openable = function (row) {
    if (!row.dataset.d || row.dataset.name !== undefined) return;
    const cell = row.cells[0], button = document.createElement("button");
    row.dataset.name = cell.dataset.v || cell.textContent.trim();
    button.type = "button";
    button.title = "Everything recorded about this row";
    button.textContent = cell.lastChild.textContent;
    cell.replaceChild(button, cell.lastChild);
    button.addEventListener("click", () => open(row));
  };
})();
