// The samples of the last minute, a few each second, for the charts.

export const SPAN = 60000;
const STEP = 250;

export class History {
  #points = [];

  get points() {
    return this.#points;
  }

  /** Add values at a time (milliseconds). A sample shortly after the last one replaces it. */
  add(at, values) {
    const points = this.#points;
    if (points.length > 1 && at - points[points.length - 2].at < STEP) points.pop();
    points.push({ at, values });
    while (points.length && points[0].at < at - SPAN - STEP) points.shift();
  }

  /** The maximum of a sum of values. */
  highest(sum) {
    return this.#points.reduce((most, point) => Math.max(most, sum(point.values)), 0);
  }
}
