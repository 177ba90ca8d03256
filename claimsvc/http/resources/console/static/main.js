// The console: updates the page from the event stream.

import { CouponTable } from "./coupons.js";
import { byId, mark, say } from "./dom.js";
import { describeAges, Figures, StressPanel, Surroundings, VerdictPanel } from "./panels.js";
import { QueuePanel } from "./queues.js";
import { Stream } from "./stream.js";

const verdict = new VerdictPanel();
const figures = new Figures();
const coupons = new CouponTable();
const queues = new QueuePanel();
const surroundings = new Surroundings();
const stress = new StressPanel();
const calm = matchMedia("(prefers-reduced-motion: reduce)");

let last = null;
// The service's clock minus this page's clock (milliseconds), so that ages advance between pictures.
let clock = 0;
let isPaused = false;
let isDue = false;
let shownAt = -Infinity;
let isOld = false;

function show() {
  isDue = false;
  const now = performance.now();
  // With reduced motion, figures change once a second.
  if (isPaused || !last || (calm.matches && now - shownAt < 1000)) return;
  if (shownAt === -Infinity) performance.mark("first-figures");
  shownAt = now;
  const { picture } = last;
  const at = now + clock;
  if (!isOld) verdict.update(last.verdict, now, last.verdict_since * 1000, at);
  figures.update(picture, now);
  coupons.update(picture.coupons, picture.instances, now);
  queues.update(last.queues, picture.instances, at);
  surroundings.update(picture, at);
  if (!isOld) say(byId("ages"), describeAges(picture, last.queues, 0, at));
  stress.update(last.scenarios, last.stress_test);
  byId("scope").hidden = picture.hears_others;
  say(byId("scope"), "Redis does not answer, so other instances cannot be reached: the figures are those of this process only.");
  byId("stock-age").hidden = !picture.stock_age_seconds;
  say(byId("stock-age"), `The stock shown is ${picture.stock_age_seconds} s old: it cannot be read from PostgreSQL.`);
  say(byId("viewers"), `${last.viewers} ${last.viewers === 1 ? "viewer" : "viewers"} here`);
}

function heard(kind, message) {
  clock = message.at - performance.now();
  if (kind === "picture") last = message;
  if (!isDue) {
    isDue = true;
    requestAnimationFrame(show);
  }
}

const STATES = {
  connecting: () => "connecting",
  live: () => (isPaused ? "paused" : "live"),
  stale: (seconds) => `stale: ${seconds} s old`,
  lost: (seconds) => `connection lost ${seconds} s ago, trying again`,
  stopping: () => "the instance is stopping, connecting to another",
  full: () => "too many viewers here, trying again",
};

function changed(state, age) {
  const seconds = Math.round(age / 1000);
  mark(byId("connection"), "state", isPaused && state === "live" ? "paused" : state);
  say(byId("connection-text"), STATES[state](seconds));
  isOld = state !== "live" && age > 3000 && last !== null;
  mark(document.body, "old", String(isOld));
  if (isOld) {
    say(byId("ages"), describeAges(last.picture, last.queues, age, performance.now() + clock));
    const text = `This page is cut off from the service: the data below is old, by ${seconds} s.`;
    const advice = "The page reconnects automatically when the service answers.";
    verdict.update({ kind: "old", level: "warning", text, evidence: "", advice }, performance.now(), null, null);
  }
}

// Tooltips with the meaning of columns; screen readers use `aria-describedby`.
for (const heading of document.querySelectorAll("th[aria-describedby]")) {
  heading.title = byId(heading.getAttribute("aria-describedby")).textContent;
}

byId("pause").addEventListener("click", () => {
  isPaused = !isPaused;
  byId("pause").setAttribute("aria-pressed", String(isPaused));
  say(byId("pause"), isPaused ? "Resume" : "Pause");
  show();
});

new Stream("/console/events", heard, changed).open();
