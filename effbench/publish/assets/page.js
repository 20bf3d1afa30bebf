// Theme, sorting, filtering and the window of a row. Text only ever goes in through textContent.
"use strict";
(function () {
  const root = document.documentElement;

  function stored(value) {
    // Storage may be refused (private window, file:// in some browsers): the choice then lasts as long as the page.
    try {
      if (value !== undefined) localStorage.setItem("effbench-theme", value);
      return localStorage.getItem("effbench-theme");
    } catch (error) {
      return null;
    }
  }

  function dark() {
    return root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  }

  function theme() {
    const button = document.getElementById("theme");
    const name = () => { button.textContent = dark() ? "Light" : "Dark"; button.setAttribute("aria-label", `Switch to ${dark() ? "light" : "dark"} colours`); };
    const chosen = stored();
    if (chosen === "dark" || chosen === "light") root.dataset.theme = chosen;
    button.hidden = false;
    name();
    const tell = () => { name(); document.dispatchEvent(new CustomEvent("themechange")); };
    button.addEventListener("click", () => { root.dataset.theme = dark() ? "light" : "dark"; stored(root.dataset.theme); tell(); });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", tell);
  }

  const collator = new Intl.Collator("en", { numeric: true });

  function compare(a, b, numeric, sign) {
    // What is missing goes last in both directions.
    if (a === "" || b === "") return a === b ? 0 : a === "" ? 1 : -1;
    return sign * (numeric ? Number(a) - Number(b) : collator.compare(a, b));
  }

  function sort(table, index, descending) {
    const heads = [...table.tHead.rows[0].cells];
    const numeric = heads[index].classList.contains("number");
    const rows = [...table.tBodies[0].rows].map((row) => [row.cells[index].dataset.v, row]);
    rows.sort((a, b) => compare(a[0], b[0], numeric, descending ? -1 : 1));
    table.tBodies[0].append(...rows.map((pair) => pair[1]));
    heads.forEach((head) => head.removeAttribute("aria-sort"));
    heads[index].setAttribute("aria-sort", descending ? "descending" : "ascending");
  }

  function sortable(table) {
    [...table.tHead.rows[0].cells].forEach((head, index) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const now = head.getAttribute("aria-sort");
        // The first click puts the best on top.
        sort(table, index, now ? now === "ascending" : head.dataset.better === "higher");
      });
    });
  }

  function filterable(input) {
    const table = document.getElementById(input.dataset.table);
    const count = document.getElementById(table.dataset.count);
    const rows = [...table.tBodies[0].rows].map((row) => [row.textContent.toLowerCase(), row]);
    input.addEventListener("input", () => {
      const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      for (const [text, row] of rows) {
        row.hidden = !words.every((word) => text.includes(word));
        shown += row.hidden ? 0 : 1;
      }
      count.textContent = words.length ? `${shown} of ${rows.length} rows` : `${rows.length} rows`;
    });
  }

  function windows(block) {
    const table = document.getElementById(block.dataset.for);
    const facts = JSON.parse(block.textContent);
    const dialog = document.getElementById("window");
    for (const row of table.tBodies[0].rows) {
      const cell = row.cells[0];
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = cell.lastChild.textContent;
      button.title = "Everything recorded about this row";
      cell.replaceChild(button, cell.lastChild);
      button.addEventListener("click", () => {
        document.getElementById("window-title").textContent = cell.dataset.v;
        const list = dialog.querySelector("dl");
        list.replaceChildren();
        for (const [name, text] of facts[Number(row.dataset.row)]) {
          const term = document.createElement("dt");
          const value = document.createElement("dd");
          term.textContent = name;
          value.textContent = text;
          list.append(term, value);
        }
        dialog.showModal();
      });
    }
  }

  theme();
  document.querySelectorAll("table.sortable").forEach(sortable);
  document.querySelectorAll("input.filter").forEach(filterable);
  document.querySelectorAll("script.rows").forEach(windows);
})();
