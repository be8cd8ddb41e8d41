"use strict";
(() => {
  // Tables: a click on a heading sorts by it, another one turns the order round. Rows without a number come last.
  const text = new Intl.Collator("en", { numeric: true });
  const key = (row, place) => {
    const field = row.cells[place];
    const value = field.dataset.value;
    return value === undefined ? field.textContent : value === "" ? null : Number(value);
  };
  const compare = (a, b) => (typeof a === "string" ? text.compare(a, b) : a - b);
  for (const table of document.querySelectorAll("table")) {
    const headings = [...table.tHead.rows[0].cells];
    const body = table.tBodies[0];
    headings.forEach((heading, place) => {
      heading.querySelector("button").addEventListener("click", () => {
        const ascending = heading.getAttribute("aria-sort") !== "ascending";
        for (const other of headings) other.setAttribute("aria-sort", "none");
        heading.setAttribute("aria-sort", ascending ? "ascending" : "descending");
        const rows = [...body.rows].map((row) => [key(row, place), row]);
        rows.sort(([a], [b]) => {
          if (a === null || b === null) return (a === null) - (b === null);
          return ascending ? compare(a, b) : compare(b, a);
        });
        body.append(...rows.map(([, row]) => row));
      });
    });
  }

  // Filters: a row stays if it contains every word.
  for (const input of document.querySelectorAll("input[data-filter]")) {
    const rows = [...document.getElementById(input.dataset.filter).tBodies[0].rows];
    const count = input.closest("p").querySelector("output");
    const apply = () => {
      const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      for (const row of rows) {
        const fields = [...row.cells].map((cell) => cell.textContent).join("\n").toLowerCase();
        row.hidden = !words.every((word) => fields.includes(word));
      }
      const left = rows.filter((row) => !row.hidden).length;
      count.textContent = left === rows.length ? `${left} rows` : `${left} of ${rows.length} rows`;
    };
    input.addEventListener("input", apply);
    // A page that is opened again may have kept what was typed.
    apply();
  }

  // Figures: the image stays until the interactive one is there, and where there is none to be had.
  const charts = document.getElementById("charts");
  if (!charts) return;
  const options = {
    mode: "vega-lite",
    renderer: "svg",
    // Expressions are interpreted: the page's policy allows no code that is made from text.
    ast: true,
    actions: { export: { svg: true, png: true }, source: false, compiled: false, editor: false },
  };
  for (const [name, chart] of Object.entries(JSON.parse(charts.textContent))) {
    const box = document.querySelector(`[data-chart="${CSS.escape(name)}"]`);
    const place = document.createElement("div");
    box.append(place);
    window
      .vegaEmbed(place, chart, { ...options, downloadFileName: name })
      .then(() => box.classList.add("drawn"))
      .catch((error) => {
        place.remove();
        console.error(`figure ${name}: ${error}`);
      });
  }
})();
