"use strict";
(() => {
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const touch = matchMedia("(pointer: coarse)").matches;
  const config = { displayModeBar: false, displaylogo: false, responsive: true, showTips: false };
  const extra = { light: { "@grid": "#e6e6e6", "@muted": "#8a8a8a" }, dark: { "@grid": "#2c3238", "@muted": "#7d858c" } };
  const printWidth = 640; // of a sheet of A4 or letter paper
  let printing = false;

  // colours come from the style sheet, so that page and plots agree
  function colours() {
    const style = getComputedStyle(document.documentElement);
    const found = { ...extra[dark.matches && !printing ? "dark" : "light"] };
    for (const role of ["paper", "ink", "data", "model", "target", "other", "exact"]) {
      found["@" + role] = style.getPropertyValue("--" + role).trim();
    }
    return found;
  }

  function filled(value, palette) {
    if (typeof value === "string") return palette[value] ?? value;
    if (Array.isArray(value)) {
      const plain = typeof value[0] === "number" && typeof value[value.length - 1] === "number";
      return plain ? value : value.map((v) => filled(v, palette));
    }
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, filled(v, palette)]));
  }

  function draw(key) {
    const spec = figures[key];
    const div = document.getElementById("plot-" + key);
    const palette = colours();
    const data = filled(spec.data, palette);
    const layout = filled(spec.layout, palette);
    const slider = document.getElementById("slider-" + key);
    if (slider) {
      data[spec.frames.trace].x = spec.frames.x[slider.value];
      data[spec.frames.trace].y = spec.frames.y[slider.value];
    }
    if (printing) layout.width = Math.min(printWidth, div.clientWidth || printWidth);
    layout.dragmode = touch ? false : "zoom";
    if (touch) for (const axis of ["xaxis", "yaxis"]) layout[axis].fixedrange = true;
    return Plotly.react(div, data, layout, config);
  }

  function move(key) {
    const { trace, x, y, labels } = figures[key].frames;
    const slider = document.getElementById("slider-" + key);
    const label = labels[slider.value];
    Plotly.restyle("plot-" + key, { x: [x[slider.value]], y: [y[slider.value]] }, [trace]);
    slider.setAttribute("aria-valuetext", label);
    for (const id of ["label-", "printed-"]) document.getElementById(id + key).textContent = label;
  }

  const drawAll = () => Object.keys(figures).forEach(draw);
  drawAll();
  for (const [key, spec] of Object.entries(figures)) {
    if (spec.frames) document.getElementById("slider-" + key).addEventListener("input", () => move(key));
  }
  dark.addEventListener("change", drawAll);
  matchMedia("print").addEventListener("change", (event) => { printing = event.matches; drawAll(); });
})();
