// The table: TanStack Table sorts and filters, and the page's rows are put in that order.
// The chart: scores of the ticked rows.
"use strict";

(() => {
  const { families, rows } = window.board;
  const table = document.getElementById("board");
  const body = table.tBodies[0];
  const status = document.getElementById("status");
  const lines = new Map(rows.map((row) => [row.id, document.getElementById(row.id)]));
  const buttons = [...table.querySelectorAll("button.sort")];
  const cells = [...table.querySelectorAll("[data-column]:not(button)")];
  const groups = [...table.querySelectorAll("th[data-family]")];

  const value = (id) => (id === "name" ? (row) => row.name : (row) => row.values[id]);
  const columns = buttons.map(({ dataset: { column, first } }) => ({
    id: column,
    accessorFn: value(column),
    sortingFn: column === "name" ? "alphanumeric" : "basic",
    sortDescFirst: first === "desc",
    sortUndefined: "last", // unranked rows, in both directions
    enableGlobalFilter: column === "name",
  }));
  columns.push({ id: "family", accessorFn: (row) => row.in, filterFn: "arrIncludes" });

  const shown = TableCore.createTable({
    data: rows,
    columns,
    state: {},
    onStateChange: () => {},
    renderFallbackValue: null,
    getRowId: (row) => row.id,
    enableSortingRemoval: false,
    globalFilterFn: (row, _, text) =>
      `${row.original.name} ${row.original.kind}`.toLowerCase().includes(text.toLowerCase().trim()),
    getCoreRowModel: TableCore.getCoreRowModel(),
    getFilteredRowModel: TableCore.getFilteredRowModel(),
    getSortedRowModel: TableCore.getSortedRowModel(),
  });
  let state = { ...shown.initialState, sorting: [{ id: "rank-all", desc: false }] };
  shown.setOptions((options) => ({
    ...options,
    state,
    onStateChange: (change) => {
      state = typeof change === "function" ? change(state) : change;
      shown.setOptions((earlier) => ({ ...earlier, state }));
      draw();
    },
  }));

  function draw() {
    const found = shown.getRowModel().rows;
    const kept = new Set(found.map((row) => row.id));
    body.append(...found.map((row) => lines.get(row.id)));
    for (const [id, line] of lines) line.hidden = !kept.has(id);
    for (const cell of cells) cell.hidden = !shown.getColumn(cell.dataset.column).getIsVisible();
    const family = document.getElementById("family").value;
    for (const group of groups) group.hidden = Boolean(family) && group.dataset.family !== family;
    let by = "";
    for (const button of buttons) {
      const sorted = shown.getColumn(button.dataset.column).getIsSorted();
      const header = button.closest("th");
      if (!sorted) header.removeAttribute("aria-sort");
      else {
        header.setAttribute("aria-sort", sorted === "asc" ? "ascending" : "descending");
        by = `, sorted by ${button.textContent.trim()}, ${sorted === "asc" ? "ascending" : "descending"}`;
      }
    }
    status.textContent = `${found.length} of ${rows.length} models${by}`;
  }

  for (const button of buttons)
    button.addEventListener("click", () => shown.getColumn(button.dataset.column).toggleSorting());

  document.getElementById("search").addEventListener("input", (event) =>
    shown.setGlobalFilter(event.target.value || undefined));

  // One family: its columns and the models with scores in it, by their rank there.
  document.getElementById("family").addEventListener("change", (event) => {
    const family = event.target.value;
    const hidden = families.filter((each) => family && each.id !== family);
    const ids = hidden.flatMap(({ id, benchmarks }) => [`rank-${id}`, `score-${id}`, ...benchmarks]);
    if (family) ids.push("rank-all");
    shown.setColumnVisibility(Object.fromEntries(ids.map((id) => [id, false])));
    shown.setColumnFilters(family ? [{ id: "family", value: family }] : []);
    shown.setSorting([{ id: `rank-${family || "all"}`, desc: false }]);
  });

  const boxes = [...body.querySelectorAll("input[type=checkbox]")];
  const scores = [...document.querySelectorAll("#scores [data-row]")];
  const chart = new Chart(document.getElementById("radar"), {
    type: "radar",
    data: { labels: families.map((family) => folded(family.title)), datasets: [] },
    options: {
      plugins: { legend: { position: "bottom", labels: { usePointStyle: true } } },
      scales: { r: { pointLabels: { font: { size: 13 } }, ticks: { showLabelBackdrop: true }, grid: { color: "#c3c9cf" } } },
    },
  });

  function drawChart() {
    const ticked = new Set(boxes.filter((box) => box.checked).map((box) => box.value));
    const chosen = rows.filter((row) => ticked.has(row.id));
    const points = (row) => families.map(({ id }) => row.values[`score-${id}`] ?? null);
    const all = chosen.flatMap(points).filter((each) => each !== null);
    const least = Math.max(0, 10 * Math.floor((Math.min(...all, 100) - 15) / 10));
    const most = 10 * Math.ceil((Math.max(...all, 100) + 1) / 10);
    Object.assign(chart.options.scales.r, { min: least, max: most });
    chart.data.datasets = chosen.map((row, number) => ({ label: short(row.name), data: points(row), fill: false, ...look(number) }));
    chart.update();
    document.getElementById("axis").textContent = `The middle is ${least}, the rim ${most}.`;
    for (const line of scores) line.hidden = !ticked.has(line.dataset.row);
  }

  body.addEventListener("change", drawChart);
  draw();
  drawChart();
})();
