// Charts: stacked areas of the last minute, and sparklines. SVG, so that the page's colours apply.

import { draw } from "./dom.js";
import { SPAN } from "./history.js";

/** A round number above the value, for the upper end of a chart's axis. */
export function ceiling(value) {
  if (value <= 10) return 10;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 1.5, 2, 3, 5, 7.5, 10].find((step) => step * power >= value) * power;
}

const place = (x, y) => `${x.toFixed(1)} ${y.toFixed(1)}`;

/** Stacked areas, the first at the bottom. */
export class StackedChart {
  #series;
  #paths = new Map();
  #top;
  #width = 600;
  #height = 150;

  constructor(parent, series, label) {
    this.#series = series;
    this.svg = draw("svg", {
      viewBox: `0 0 ${this.#width} ${this.#height}`,
      preserveAspectRatio: "none",
      role: "img",
      "aria-label": label,
      class: "chart",
    });
    for (const share of [0, 0.5]) {
      const y = 1 + share * (this.#height - 2);
      this.svg.append(draw("line", { x1: 0, x2: this.#width, y1: y, y2: y, class: "grid" }));
    }
    for (const name of series) {
      const path = draw("path", { class: `area outcome-${name}` });
      this.#paths.set(name, path);
      this.svg.append(path);
    }
    this.#top = Object.assign(document.createElement("p"), { className: "top", ariaHidden: "true" });
    parent.append(this.#top, this.svg);
  }

  update(history, now) {
    const sum = (values) => this.#series.reduce((total, name) => total + (values[name] ?? 0), 0);
    const top = ceiling(history.highest(sum));
    const text = `${top.toLocaleString("en")}/s`;
    if (this.#top.textContent !== text) this.#top.textContent = text;
    const x = (at) => this.#width * (1 - (now - at) / SPAN);
    const y = (value) => this.#height - 1 - (value / top) * (this.#height - 2);
    let below = history.points.map(() => 0);
    for (const name of this.#series) {
      const above = history.points.map((point, index) => below[index] + (point.values[name] ?? 0));
      const forth = history.points.map((point, index) => place(x(point.at), y(above[index])));
      const back = history.points.map((point, index) => place(x(point.at), y(below[index]))).reverse();
      this.#paths.get(name).setAttribute("d", forth.length > 1 ? `M${forth.join("L")}L${back.join("L")}Z` : "");
      below = above;
    }
  }
}

/** One line, scaled to its maximum. */
export class Sparkline {
  #line = draw("path", { class: "line" });
  #area = draw("path", { class: "under" });

  constructor() {
    this.svg = draw("svg", {
      viewBox: "0 0 120 28",
      preserveAspectRatio: "none",
      class: "sparkline",
      "aria-hidden": "true",
    });
    this.svg.append(this.#area, this.#line);
  }

  update(history, now, value) {
    const points = history.points;
    if (points.length < 2) return;
    const top = Math.max(history.highest(value), 1e-9);
    const line = points
      .map((point) => place(120 * (1 - (now - point.at) / SPAN), 26 - (value(point.values) / top) * 24))
      .join("L");
    const start = 120 * (1 - (now - points[0].at) / SPAN);
    this.#line.setAttribute("d", `M${line}`);
    this.#area.setAttribute("d", `M${place(start, 28)}L${line}L120 28Z`);
  }
}
