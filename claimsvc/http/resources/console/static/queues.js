// The table of queues. It is shown only if there are any.

import { age, byId, count, letter, rate, say } from "./dom.js";
import { PlainTable } from "./panels.js";

// The texts for the states of a queue. The service decides the state.
const STATES = {
  waiting: "started in turn",
  empty: "empty",
  paused: "paused",
  "not-started": "not started yet",
  "sold-out": "sold out: waits for units that come back",
  unavailable: "stopped: a dependency does not answer",
  stalled: "stands still",
};

export class QueuePanel {
  #table = new PlainTable("queues");

  /** `instances` are those of the picture; `at` is the current time (milliseconds). */
  update({ rows, more }, instances, at) {
    byId("queues-card").hidden = !rows.length;
    this.#table.update(rows.map((queue) => describe(queue, instances, at / 1000)));
    byId("more-queues").hidden = !more;
    say(byId("more-queues"), `${count(more)} more ${more === 1 ? "queue is" : "queues are"} in use.`);
  }
}

function describe(queue, instances, now) {
  const since = (moment) => age(Math.max(0, now - moment));
  const first = queue.oldest_joined_at;
  const place = instances.findIndex((instance) => instance.id === queue.dispatcher);
  const dispatcher = place < 0 ? queue.dispatcher_name : `${letter(place)} (${instances[place].name})`;
  return {
    key: queue.name,
    name: queue.name,
    level: queue.state === "stalled" || queue.dead ? "bad" : "good",
    cells: [
      [STATES[queue.state] ?? queue.state],
      [count(queue.waiting)],
      first === null ? ["–"] : [since(first), `of ${age(queue.max_wait_seconds)}`],
      [rate(queue.pace), `of ${count(queue.rate_per_second)}`],
      [count(queue.started), `of ${count(queue.concurrency)}`],
      [queue.dead ? count(queue.dead) : "none"],
      queue.dispatched_at === null ? ["nobody"] : [dispatcher, `${since(queue.dispatched_at)} ago`],
    ],
  };
}
