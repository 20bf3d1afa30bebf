// Draws the figures of a page when they come near the viewport, in the page's own colours.
"use strict";
(function () {
  const figures = [...document.querySelectorAll(".figure")];
  const settings = {
    responsive: true, displaylogo: false, displayModeBar: "hover",
    modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d", "zoomIn2d", "zoomOut2d"],
    toImageButtonOptions: { format: "svg" },
  };

  function colours() {
    const style = getComputedStyle(document.documentElement);
    const of = (name) => style.getPropertyValue(name).trim();
    return { page: of("--page"), panel: of("--panel"), text: of("--text"), soft: of("--soft"), line: of("--line") };
  }

  function axis(given, colour) {
    return Object.assign({
      automargin: true, gridcolor: colour.line, linecolor: colour.soft, zeroline: false, showline: true, mirror: true,
      ticks: "outside", ticklen: 4, tickcolor: colour.soft, minor: { ticks: "" },
    }, given, { title: Object.assign({ standoff: 10, font: { size: 13 } }, given.title) });
  }

  function layout(given, colour) {
    const height = given.height || 384;
    return Object.assign({}, given, {
      autosize: true, height, margin: { l: 56, r: 16, t: 12, b: 48 },
      paper_bgcolor: colour.page, plot_bgcolor: colour.page,
      font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: colour.text },
      hoverlabel: { bgcolor: colour.panel, bordercolor: colour.line, font: { color: colour.text }, align: "left", namelength: -1 },
      legend: { orientation: "h", x: 0, xanchor: "left", y: -84 / height, yanchor: "top", font: { size: 12 } },
      modebar: { bgcolor: "rgba(0,0,0,0)", color: colour.soft, activecolor: colour.text },
      dragmode: matchMedia("(pointer: coarse)").matches ? false : "zoom",
      xaxis: axis(given.xaxis, colour), yaxis: axis(given.yaxis, colour),
    });
  }

  function draw(figure) {
    if (figure.dataset.drawn) return;
    figure.dataset.drawn = "now";
    const given = JSON.parse(figure.querySelector("script").textContent);
    figure.given = given.layout;
    Plotly.newPlot(figure, given.data, layout(given.layout, colours()), settings).then(() => { figure.dataset.drawn = "done"; });
  }

  window.effbenchPlots = { layout: (given) => layout(given, colours()), settings };
  if (!figures.length || typeof Plotly === "undefined") return;
  const watcher = new IntersectionObserver((entries) => {
    for (const entry of entries) if (entry.isIntersecting) { watcher.unobserve(entry.target); draw(entry.target); }
  }, { rootMargin: "600px" });
  figures.forEach((figure) => watcher.observe(figure));
  addEventListener("beforeprint", () => figures.forEach(draw));
  document.addEventListener("themechange", () => {
    const colour = colours();
    figures.filter((figure) => figure.dataset.drawn === "done").forEach((figure) => Plotly.relayout(figure, layout(figure.given, colour)));
  });
})();
