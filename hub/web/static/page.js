"use strict";
// Renews the page's figures from /dashboard/data without reloading it. Texts go in as text, never as markup.
(() => {
  const settings = document.body.dataset;
  const CONFIG = { displayModeBar: false, responsive: true, scrollZoom: false, doubleClick: false };
  const PATIENCE = 10_000; // ms
  const NARROW = 440; // px
  let charts = null;

  // ---- charts ---------------------------------------------------------------------------------------------------

  // A colour that begins with "--" names a custom property of the style sheet.
  function coloured(value, style) {
    if (typeof value === "string") return value.startsWith("--") ? style.getPropertyValue(value).trim() : value;
    if (Array.isArray(value)) return value.map((part) => coloured(part, style));
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([name, part]) => [name, coloured(part, style)]));
    }
    return value;
  }

  function narrow(layout) {
    if (layout.meta) layout.xaxis.range = [0, 2.1 * layout.meta.longest];
    if (layout.xaxis.nticks) layout.xaxis.nticks = 5;
  }

  function draw() {
    if (!charts || !window.Plotly) return;
    const style = getComputedStyle(document.documentElement);
    const font = getComputedStyle(document.body).fontFamily;
    for (const figure of document.querySelectorAll("[data-chart]")) {
      const chart = charts[figure.dataset.chart];
      const nothing = document.querySelector(`[data-nothing="${figure.dataset.chart}"]`);
      figure.hidden = !chart;
      nothing.hidden = Boolean(chart);
      if (!chart) continue;
      const layout = coloured(chart.layout, style);
      layout.font.family = font;
      figure.style.height = `${layout.height}px`;
      if (figure.clientWidth < NARROW) narrow(layout);
      window.Plotly.react(figure, coloured(chart.data, style), layout, CONFIG);
    }
  }

  // ---- numbers and tables ---------------------------------------------------------------------------------------

  function write(element, text) {
    if (element.textContent === text) return;
    element.textContent = text;
    if (element.tagName === "STRONG" || element.tagName === "DD") {
      element.classList.remove("changed");
      requestAnimationFrame(() => element.classList.add("changed"));
    }
  }

  function writeTable(table, rows) {
    const numeric = [...table.tHead.rows[0].cells].map((cell) => cell.className);
    const written = rows.map((row) => {
      const line = document.createElement("tr");
      line.className = row.mark;
      row.cells.forEach((text, place) => {
        const cell = document.createElement(place ? "td" : "th");
        if (!place) cell.scope = "row";
        if (place && numeric[place]) cell.className = numeric[place];
        cell.textContent = text;
        line.append(cell);
      });
      return line;
    });
    if (!written.length) {
      const line = document.createElement("tr");
      line.className = "none";
      const cell = document.createElement("td");
      cell.colSpan = numeric.length;
      cell.textContent = table.dataset.empty;
      line.append(cell);
      written.push(line);
    }
    const body = table.tBodies[0];
    const same = body.rows.length === written.length
      && written.every((line, place) => body.rows[place].className === line.className
        && line.cells.length === body.rows[place].cells.length
        && [...line.cells].every((cell, at) => cell.textContent === body.rows[place].cells[at].textContent));
    if (!same) body.replaceChildren(...written);
  }

  function show(view) {
    for (const element of document.querySelectorAll("[data-cell]")) {
      const name = element.dataset.cell;
      write(element, name === "watermark" ? view.watermark : view.cells[name] ?? "");
    }
    for (const bar of document.querySelectorAll("[data-bar]")) bar.setAttribute("width", view.bars[bar.dataset.bar]);
    for (const table of document.querySelectorAll("[data-table]")) writeTable(table, view.tables[table.dataset.table]);
    document.querySelector("[data-welcome]").hidden = !view.empty;
    charts = view.charts;
    draw();
  }

  function say(state) {
    const place = document.getElementById("state");
    place.classList.toggle("broken", state !== "live");
    write(place.querySelector("[data-state]"), settings[state]);
  }

  // ---- the loop -------------------------------------------------------------------------------------------------

  async function renew() {
    try {
      const options = { cache: "no-store", credentials: "same-origin", signal: AbortSignal.timeout(PATIENCE) };
      const answer = await fetch(settings.source, options);
      if (answer.status === 401) {
        say("ended");
        return false;
      }
      if (!answer.ok) throw new Error(`status ${answer.status}`);
      show(await answer.json());
      say("live");
    } catch {
      say("stale"); // what stands there stays, with its watermark
    }
    return true;
  }

  async function loop() {
    // a page nobody looks at asks for nothing
    const goOn = document.hidden || await renew();
    if (goOn) setTimeout(loop, Number(settings.every));
  }

  // With a script the charts come first and the tables of their figures fold away.
  for (const table of document.querySelectorAll("figure + p + details")) table.open = false;
  for (const figure of document.querySelectorAll("[data-chart]")) figure.hidden = false;
  addEventListener("load", draw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  loop();
})();
