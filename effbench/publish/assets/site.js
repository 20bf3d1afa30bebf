// Tables of the site: sorting, filtering, ranks. Only the first rows of a long table stand in the document; all are counted.
"use strict";
(function () {
  const FIRST = 150, FACETS = 40;
  const collator = new Intl.Collator("en", { numeric: true });

  class Board {
    constructor(box) {
      this.box = box;
      this.table = box.querySelector("table");
      this.body = this.table.tBodies[0];
      this.heads = [...this.table.tHead.rows[0].cells];
      this.rows = [...this.body.rows];
      this.ranked = "ranked" in this.table.dataset;
      this.chosen = new Map();
      this.words = [];
      this.keys = [];
      this.front = false;
      this.all = false;
      this.sorted = -1;
      this.down = false;
      this.listeners = [];
      this.shown = this.rows;
      this.heads.forEach((head, index) => this.sortable(head, index));
      this.tools();
      this.rank(this.heads.findIndex((head) => head.classList.contains("number") && !head.classList.contains("rank")));
      this.draw();
    }

    text(row, index) {
      const cell = row.cells[index];
      return cell.dataset.v !== undefined ? cell.dataset.v : cell.textContent;
    }

    sortable(head, index) {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => this.sort(index));
    }

    sort(index) {
      const head = this.heads[index], numeric = head.classList.contains("number");
      // The first click puts the best on top.
      this.down = this.sorted === index ? !this.down : head.dataset.better === "higher";
      this.sorted = index;
      if (!head.classList.contains("rank")) this.rank(index);
      if (!this.keys[index] || head.classList.contains("rank")) {
        this.keys[index] = new Map(this.rows.map((row) => {
          const raw = row.cells[index].dataset.v;
          if (head.classList.contains("rank")) return [row, parseFloat(row.cells[index].textContent)];
          return [row, numeric ? (raw === undefined ? NaN : Number(raw)) : this.text(row, index)];
        }));
      }
      const key = this.keys[index], sign = this.down ? -1 : 1;
      const compare = numeric
        ? (a, b) => {
          const left = key.get(a), right = key.get(b);
          // What is missing goes last in both directions.
          if (left !== left || right !== right) return left !== left ? (right !== right ? 0 : 1) : -1;
          return sign * (left - right);
        }
        : (a, b) => sign * collator.compare(key.get(a), key.get(b));
      this.rows.sort(compare);
      this.heads.forEach((each) => each.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", this.down ? "descending" : "ascending");
      this.draw();
    }

    // Ranks follow the column that is sorted by.
    rank(index) {
      if (!this.ranked || index < 0 || !this.heads[index].classList.contains("number")) return;
      this.rankedBy = index;
      const place = 1;
      for (const row of this.rows) row.cells[place].textContent = row.cells[index].dataset.r || "-";
      this.keys[place] = null;
      const label = this.heads[place].querySelector("button") || this.heads[place];
      label.textContent = `rank by ${this.heads[index].textContent}`;
    }

    tools() {
      const input = this.box.querySelector("[data-filter]");
      this.count = this.box.querySelector("[data-count]");
      this.more = this.box.querySelector(".more");
      if (input) {
        input.addEventListener("input", () => { this.words = input.value.toLowerCase().split(/\s+/).filter(Boolean); this.draw(); });
        const front = this.box.querySelector("[data-front]");
        if (front) front.addEventListener("change", () => { this.front = front.checked; this.draw(); });
        this.heads.forEach((head, index) => { if ("facet" in head.dataset) this.facet(head, index); });
      }
      this.more.querySelector("button").addEventListener("click", () => { this.all = !this.all; this.draw(); });
    }

    facet(head, index) {
      const values = [...new Set(this.rows.map((row) => row.cells[index].textContent.trim()))].sort(collator.compare);
      if (values.length < 2 || values.length > FACETS) return;
      const label = document.createElement("label"), select = document.createElement("select");
      label.append(`${head.textContent} `, select);
      for (const value of ["all", ...values]) {
        const option = document.createElement("option");
        option.textContent = value.length > 40 ? `${value.slice(0, 38)}…` : value;
        option.value = value;
        select.append(option);
      }
      select.addEventListener("change", () => {
        if (select.selectedIndex) this.chosen.set(index, select.value); else this.chosen.delete(index);
        this.draw();
      });
      this.box.querySelector(".facets").append(label);
    }

    matches(row) {
      for (const [index, value] of this.chosen) if (row.cells[index].textContent.trim() !== value) return false;
      if (this.front) { const mark = row.querySelector(".mark"); if (!mark || !mark.textContent) return false; }
      if (this.words.length) {
        if (row.search === undefined) row.search = row.textContent.toLowerCase();
        return this.words.every((word) => row.search.includes(word));
      }
      return true;
    }

    draw() {
      const filtered = this.words.length || this.chosen.size || this.front;
      this.shown = filtered ? this.rows.filter((row) => this.matches(row)) : this.rows.slice();
      const limit = this.all ? this.shown.length : FIRST, part = this.shown.slice(0, limit);
      part.forEach((row) => effbench.openable(row));
      this.body.replaceChildren(...part);
      const total = this.rows.length;
      if (this.count) {
        const text = filtered ? `${this.shown.length} of ${total} rows` : `${total} row${total === 1 ? "" : "s"}`;
        this.count.textContent = part.length < this.shown.length ? `${text}, ${part.length} shown` : text;
      }
      this.more.hidden = this.shown.length <= FIRST;
      this.more.querySelector("button").textContent = this.all ? `Show ${FIRST} rows` : `Show all ${this.shown.length} rows`;
      this.listeners.forEach((listener) => listener());
    }
  }

  window.effbench = { boards: new Map(), openable() {} };
  document.addEventListener("DOMContentLoaded", () => {
    document.querySelectorAll(".board-box").forEach((box) => { if (box.querySelector("table")) effbench.boards.set(box.id, new Board(box)); });
    document.dispatchEvent(new CustomEvent("boards"));
  });
})();
