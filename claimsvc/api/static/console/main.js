// The console: one stream in, everything on the page kept up to date.

import { CouponTable } from "./coupons.js";
import { byId, mark, say } from "./dom.js";
import { Figures, StressPanel, Surroundings, VerdictPanel } from "./panels.js";
import { Stream } from "./stream.js";

const verdict = new VerdictPanel();
const figures = new Figures();
const coupons = new CouponTable();
const surroundings = new Surroundings();
const stress = new StressPanel();
const calm = matchMedia("(prefers-reduced-motion: reduce)");

let last = null;
let isPaused = false;
let isDue = false;
let shownAt = -Infinity;
let isOld = false;

function show() {
  isDue = false;
  const now = performance.now();
  // Who wants less motion gets figures once a second.
  if (isPaused || !last || (calm.matches && now - shownAt < 1000)) return;
  if (shownAt === -Infinity) performance.mark("first-figures");
  shownAt = now;
  const { picture } = last;
  if (!isOld) verdict.update(last.verdict, now);
  figures.update(picture, now);
  coupons.update(picture.coupons, picture.instances, now);
  surroundings.update(picture);
  stress.update(last.scenarios, last.stress_test);
  byId("scope").hidden = picture.hears_others;
  say(byId("scope"), "Redis does not answer, so other instances are not heard: this is this process alone.");
  say(byId("viewers"), `${last.viewers} ${last.viewers === 1 ? "viewer" : "viewers"} here`);
}

function heard(message) {
  last = message ?? last;
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
    const text = "No news for some seconds: what is shown below is old.";
    verdict.update({ level: "warning", text, advice: "It goes on by itself as soon as the service answers." }, performance.now());
  }
}

byId("pause").addEventListener("click", () => {
  isPaused = !isPaused;
  byId("pause").setAttribute("aria-pressed", String(isPaused));
  say(byId("pause"), isPaused ? "Go on" : "Pause");
  show();
});

new Stream("/console/events", heard, changed).open();
