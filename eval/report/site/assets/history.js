// One measure of one model over time, each point with its interval.
"use strict";

(() => {
  const model = document.getElementById("model");
  if (!model) return;
  const measure = document.getElementById("measure");
  const status = document.getElementById("status");
  const sections = [...document.querySelectorAll("section[data-line]")];
  const day = (time) => new Date(time).toISOString().slice(0, 10);

  // A line from one end of an interval to the other, which Chart.js cannot draw.
  const intervals = {
    id: "intervals",
    beforeDatasetsDraw: ({ ctx, data, scales: { x, y } }) => {
      ctx.save();
      ctx.strokeStyle = COLOURS[0];
      ctx.lineWidth = 2;
      for (const point of data.datasets[0]?.data ?? []) {
        const [at, low, high] = [x.getPixelForValue(point.x), y.getPixelForValue(point.low), y.getPixelForValue(point.high)];
        ctx.beginPath();
        for (const end of low === high ? [] : [low, high]) {
          ctx.moveTo(at - 5, end);
          ctx.lineTo(at + 5, end);
        }
        ctx.moveTo(at, low);
        ctx.lineTo(at, high);
        ctx.stroke();
      }
      ctx.restore();
    },
  };

  let chart;
  chart = new Chart(document.getElementById("line"), {
    type: "line",
    data: { datasets: [] },
    plugins: [intervals],
    options: {
      parsing: false,
      plugins: {
        legend: { display: false },
        tooltip: {
          callbacks: {
            title: (items) => items.map((item) => short(item.raw.name)),
            label: ({ raw }) => `${day(raw.x)}: ${raw.y.toFixed(2)}${raw.marked ? "†" : ""}` +
              (raw.low < raw.high ? ` (${raw.low.toFixed(2)} to ${raw.high.toFixed(2)})` : ""),
          },
        },
      },
      scales: {
        x: {
          type: "linear",
          grace: "3%",
          ticks: { callback: day, autoSkip: true },
          afterBuildTicks: (axis) => { axis.ticks = dates().map((value) => ({ value })); },
        },
        y: { grace: "10%" },
      },
    },
  });

  // The days of the points, at the first time of each.
  function dates() {
    const times = (chart?.data.datasets[0]?.data ?? []).map((point) => point.x);
    return times.filter((time, n) => !n || day(time) !== day(times[n - 1]));
  }

  function fill() {
    for (const section of sections) section.hidden = section.dataset.line !== model.value;
    const headers = document.querySelectorAll(`section[data-line="${model.value}"] th[data-measure]`);
    measure.replaceChildren(...[...headers].map((th) => new Option(th.textContent, th.dataset.measure)));
    measure.disabled = !headers.length;
    draw();
  }

  function draw() {
    const line = window.timelines[Number(model.value)];
    const points = line.values.flatMap((values, n) => {
      const found = values[measure.value];
      if (!found) return [];
      const [y, low, high, marked] = found;
      return [{ x: line.times[n], y, low, high, marked, name: line.names[n] }];
    });
    chart.data.datasets = [
      {
        data: points, ...look(0), fill: false, pointRadius: 5, borderWidth: 1,
        pointBackgroundColor: points.map((point) => (point.marked ? "#ffffff" : COLOURS[0])),
      },
    ];
    chart.options.scales.y.suggestedMin = Math.min(...points.map((point) => point.low));
    chart.options.scales.y.suggestedMax = Math.max(...points.map((point) => point.high));
    chart.update();
    status.textContent = `${points.length} ${points.length === 1 ? "run" : "runs"}`;
  }

  model.addEventListener("change", fill);
  measure.addEventListener("change", draw);
  fill();
})();
