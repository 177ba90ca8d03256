// What was seen in the last minute, a few times a second: what the charts draw.

export const SPAN = 60000;
const STEP = 250;

export class History {
  #points = [];

  get points() {
    return this.#points;
  }

  /** Remember the values at a time (milliseconds). What comes too soon after the last takes its place. */
  add(at, values) {
    const points = this.#points;
    if (points.length > 1 && at - points[points.length - 2].at < STEP) points.pop();
    points.push({ at, values });
    while (points.length && points[0].at < at - SPAN - STEP) points.shift();
  }

  /** The highest of a sum of values. */
  highest(sum) {
    return this.#points.reduce((most, point) => Math.max(most, sum(point.values)), 0);
  }
}
