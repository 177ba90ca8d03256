// The panels around the coupons: verdict, key figures, times, instances, masters, events, stress test.

import { Sparkline, StackedChart } from "./charts.js";
import { age, byId, cell, count, duration, fill, keepRows, letter, make, mark, percent, rate, row, rowHeading, say } from "./dom.js";
import { History } from "./history.js";
import { OUTCOMES, total } from "./outcomes.js";

const LEVELS = { quiet: ["·", "Quiet"], good: ["✓", "Fine"], warning: ["!", "Look"], bad: ["✕", "Act"] };

const NAMES = { postgresql: "PostgreSQL", redis: "Redis" };

// A screen reader must be able to finish a sentence before the next one replaces it.
const VERDICT_STAYS = 2500;

export class VerdictPanel {
  #spoken = { kind: "", level: "", at: -VERDICT_STAYS };

  /**
   * The sentence changes with the figures below it, so that both agree. `since` is when this state began, and `at` the
   * current time (milliseconds); both are null if unknown.
   */
  update({ kind, level, text, evidence, advice }, now, since, at) {
    const [sign, word] = LEVELS[level] ?? LEVELS.quiet;
    mark(byId("verdict"), "level", level);
    mark(byId("verdict"), "kind", kind);
    say(document.querySelector("#verdict .sign"), sign);
    say(byId("verdict-level"), word);
    say(byId("verdict-text"), text);
    say(byId("verdict-advice"), advice);
    byId("verdict-advice").hidden = !advice;
    say(byId("verdict-evidence"), evidence);
    byId("verdict-evidence").hidden = !evidence;
    this.#showAge(level, since, at);
    this.#speak(kind, level, `${word}: ${text} ${advice}`, now);
  }

  /** Another sentence is read aloud; the same one with other figures is not. */
  #speak(kind, level, words, now) {
    const { kind: lastKind, level: lastLevel, at } = this.#spoken;
    if (kind === lastKind || (level === lastLevel && now - at < VERDICT_STAYS)) return;
    this.#spoken = { kind, level, at: now };
    say(byId("verdict-spoken"), words);
  }

  #showAge(level, since, at) {
    const isKnown = since !== null && level !== "quiet";
    byId("verdict-age").hidden = !isKnown;
    if (isKnown) say(byId("verdict-age"), `In this state for ${age((at - since) / 1000)}.`);
  }
}

/** How old everything is that the page shows, in words. `connectionAge` is the time since the last message (milliseconds). */
export function describeAges({ instances, stock_age_seconds, hears_others }, queues, connectionAge, at) {
  const seconds = Math.round(connectionAge / 1000);
  if (seconds >= 3) return `Everything on this page is ${age(seconds)} old: nothing has been received since.`;
  const old = [];
  if (stock_age_seconds) old.push(`the stock is ${age(stock_age_seconds)} old`);
  if (queues.age_seconds) old.push(`the queues are ${age(queues.age_seconds)} old`);
  for (const [place, instance] of instances.entries()) {
    if (instance.silent_seconds) old.push(`the last of ${letter(place)} is ${age(instance.silent_seconds)} old`);
    const checked = Object.values(instance.health).map((state) => at / 1000 - state.checked_at);
    const oldest = Math.max(0, ...checked);
    if (!instance.silent_seconds && oldest > 6) old.push(`whether ${letter(place)} is ready was checked ${age(oldest)} ago`);
  }
  if (!hears_others) old.push("other instances are not heard");
  if (!old.length) return "Everything on this page is less than 3 s old.";
  return `Less than 3 s old, except: ${old.join("; ")}.`;
}

class Tile {
  #spark = new Sparkline();

  constructor(id) {
    this.element = byId(id);
    this.element.append(this.#spark.svg);
  }

  update(value, detail, level, history, now, of) {
    say(this.element.querySelector(".value"), value);
    say(this.element.querySelector(".detail"), detail);
    mark(this.element, "level", level);
    this.#spark.update(history, now, of);
  }
}

export class Figures {
  #history = new History();
  #rate = new Tile("tile-rate");
  #latency = new Tile("tile-latency");
  #waiting = new Tile("tile-waiting");
  #gaveUp = new Tile("tile-gave-up");
  #chart = new StackedChart(byId("flow"), Object.keys(OUTCOMES), "Answers a second by outcome; the list below has the numbers");
  #legend = new Map();

  constructor() {
    for (const [name, word] of Object.entries(OUTCOMES)) {
      const value = make("span", "strong", "0");
      byId("legend").append(make("li", "", make("span", `key outcome-${name}`), ` ${word} `, value));
      this.#legend.set(name, value);
    }
  }

  update(picture, now) {
    const { outcomes, p50_ms, p99_ms, waiting, gave_up } = picture;
    const all = total(outcomes);
    this.#history.add(now, { ...outcomes, all, p99: p99_ms ?? 0, waiting, gave_up });
    this.#chart.update(this.#history, now);
    for (const [name, element] of this.#legend) {
      say(element, rate(outcomes[name] ?? 0));
      mark(element.parentElement, "zero", outcomes[name] ? "no" : "yes");
    }
    const history = this.#history;
    this.#rate.update(rate(all), `${rate(outcomes.claimed ?? 0)} successful`, "good", history, now, (each) => each.all);
    const slow = p99_ms === null ? "–" : duration(p99_ms);
    const middle = p50_ms === null ? "no claims now" : `median ${duration(p50_ms)}`;
    this.#latency.update(slow, middle, p99_ms > 1000 ? "warning" : "good", history, now, (each) => each.p99);
    const waiters = picture.instances.reduce((sum, instance) => sum + instance.lock_waiters, 0);
    this.#waiting.update(count(waiting), `${count(waiters)} ${waiters === 1 ? "queue waits" : "queues wait"} for a lock`, "good", history, now, (each) => each.waiting);
    this.#gaveUp.update(count(gave_up), gave_up ? "waiting for a lock" : "none", gave_up ? "bad" : "good", history, now, (each) => each.gave_up);
    this.#showTimes(picture);
  }

  #showTimes({ times, transaction_ms, lag_ms, masters }) {
    const calls = masters.filter((master) => master.up_at.length);
    const call = calls.length ? Math.max(...calls.map((master) => master.call_ms)) : 0;
    const told = [
      ["lock", "Short turns at a lock: many instances want it", times.lock, ""],
      ["redis", "Redis: acquiring and releasing it", times.redis, calls.length ? `a call takes ${duration(call)}` : ""],
      ["postgresql", "PostgreSQL: transactions", times.postgresql, transaction_ms ? `one takes ${duration(transaction_ms)}` : ""],
      ["service", "This service: CPU, event loop, gathering claims", times.service, lag_ms >= 1 ? `event loops wake ${duration(lag_ms)} late` : ""],
    ];
    const list = byId("times");
    if (!list.children.length) {
      for (const [name, label] of told) {
        const bar = make("span", `bar wide time-${name}`, make("span", "fill"));
        list.append(make("dt", "", label), make("dd", "", make("span", "strong"), " ", make("span", "sub"), bar));
      }
    }
    const busy = times.lock + times.redis + times.postgresql + times.service > 0;
    told.forEach(([, , share, detail], index) => {
      const shown = list.querySelectorAll("dd")[index];
      say(shown.querySelector(".strong"), busy ? percent(share) : "–");
      say(shown.querySelector(".sub"), detail);
      fill(shown.querySelector(".fill"), share);
    });
  }
}

/** A table. Its rows consist of `[text, class, data]` for each column after the first. */
export class PlainTable {
  #body;
  #labels;
  #rows = new Map();

  constructor(id) {
    const table = byId(id);
    this.#body = table.tBodies[0];
    this.#labels = [...table.tHead.rows[0].cells].map((heading) => heading.textContent);
  }

  update(entries) {
    const keys = entries.map((entry) => entry.key);
    keepRows(this.#body, this.#rows, keys, () =>
      row(
        rowHeading("", make("span", "badge"), make("span", "name"), make("span", "sub")),
        ...this.#labels.slice(1).map((label) => cell(label, "", make("span", "strong"), make("span", "sub"))),
      ),
    );
    for (const { key, badge, place, name, note, level, cells } of entries) {
      const element = this.#rows.get(key);
      mark(element, "level", level);
      const heading = element.cells[0];
      say(heading.children[0], badge ?? "");
      heading.children[0].hidden = !badge;
      mark(heading.children[0], "place", String(place ?? 0));
      say(heading.children[1], name);
      say(heading.children[2], note ?? "");
      cells.forEach(([strong, sub], index) => {
        say(element.cells[index + 1].children[0], strong);
        say(element.cells[index + 1].children[1], sub ?? "");
      });
    }
  }
}

export class Surroundings {
  #instances = new PlainTable("instances");
  #masters = new PlainTable("masters");
  #events = new Map();

  update(picture, at) {
    this.#instances.update(
      picture.instances.map((instance, place) => ({
        key: instance.id,
        badge: letter(place),
        place: place % 6,
        name: instance.name,
        note: describeInstance(instance),
        level: instance.silent_seconds || unready(instance).length ? "bad" : "good",
        cells: [
          [age(at / 1000 - instance.started_at), describeRestarts(instance.restarts)],
          [rate(instance.rate)],
          [count(instance.waiting)],
          [`${instance.pool_in_use} of ${instance.pool_size}`, "in use"],
          [instance.transaction_ms ? duration(instance.transaction_ms) : "–"],
        ],
      })),
    );
    this.#masters.update(
      picture.masters.map((master) => ({
        key: master.name,
        name: master.name,
        level: master.down_at.length ? "bad" : "good",
        cells: [
          describeMaster(master, picture.instances),
          [master.call_ms ? duration(master.call_ms) : "–", master.up_at.length ? "" : "only probed"],
        ],
      })),
    );
    this.#showEvents(picture.events);
  }

  #showEvents(events) {
    const signs = { good: "+", info: "·", warning: "!", bad: "✕" };
    const keys = events.map((event) => event.key);
    keepRows(byId("events"), this.#events, keys, () =>
      make("li", "", make("time", ""), make("span", "sign"), make("span", "text"), make("span", "sub")),
    );
    for (const event of events) {
      const element = this.#events.get(event.key);
      const [time, sign, text, sub] = element.children;
      mark(element, "level", event.level);
      say(time, new Date(event.at * 1000).toLocaleTimeString("en-GB"));
      say(sign, signs[event.level] ?? "·");
      say(text, event.text);
      say(sub, event.instance);
    }
    byId("no-events").hidden = events.length > 0;
    byId("events").hidden = !events.length;
  }
}

/** The dependencies that an instance cannot use. */
function unready({ health, has_quorum }) {
  const down = Object.entries(health).filter(([, state]) => !state.is_up).map(([name]) => NAMES[name] ?? name);
  return has_quorum || down.includes(NAMES.redis) ? down : [...down, NAMES.redis];
}

function describeInstance(instance) {
  if (instance.silent_seconds) return `silent for ${Math.round(instance.silent_seconds)} s`;
  const down = unready(instance);
  const notes = [instance.is_here ? "you are here" : "", down.length ? `not ready: ${down.join(", ")}` : ""];
  return notes.filter(Boolean).join("; ");
}

const describeRestarts = (restarts) => (restarts ? `${restarts} ${restarts === 1 ? "restart" : "restarts"}` : "");

/** The state of a master as the instances see it; if they disagree, the state for each. */
function describeMaster({ up_at, down_at }, instances) {
  const names = (places) => places.map((place) => `${letter(place)} (${instances[place]?.name ?? "?"})`).join(", ");
  if (!down_at.length) return ["✓ up", up_at.length > 1 ? `for all ${up_at.length} instances` : ""];
  if (!up_at.length) return ["✕ down", down_at.length > 1 ? `for all ${down_at.length} instances` : ""];
  return [`✕ down for ${names(down_at)}`, `up for ${names(up_at)}`];
}

export class StressPanel {
  #fire = byId("fire");
  #scenario = byId("scenario");
  #isRunning = false;
  #refusal = "";

  constructor() {
    this.#fire.addEventListener("click", () => this.#start());
  }

  update(scenarios, test) {
    byId("stress").hidden = !scenarios.length;
    if (this.#scenario.options.length !== scenarios.length) {
      this.#scenario.replaceChildren(...scenarios.map((name) => new Option(name, name)));
    }
    this.#isRunning = test?.state === "running";
    // Not `disabled`, because the button that was just pressed would lose the focus.
    this.#fire.setAttribute("aria-disabled", String(this.#isRunning));
    say(this.#fire, this.#isRunning ? "Running" : "Start");
    if (this.#refusal) say(byId("stress-state"), this.#refusal);
    else if (test) this.#show(test);
  }

  #show(test) {
    mark(byId("stress"), "state", test.state);
    const words = { running: "… running", passed: "✓ passed", failed: "✕ failed", ended: "✕ ended without a result" };
    const took = test.state === "running" ? "" : ` in ${test.seconds} s`;
    const speed = test.claims_per_second ? `: ${count(test.claims_per_second)} claims a second` : "";
    say(byId("stress-state"), `${test.scenario} ${words[test.state]}${took}${speed}`);
    const outcomes = Object.entries(test.outcomes);
    const key = JSON.stringify(outcomes);
    if (byId("stress-outcomes").dataset.key !== key) {
      byId("stress-outcomes").dataset.key = key;
      byId("stress-outcomes").replaceChildren(
        ...outcomes.flatMap(([name, number]) => [make("dt", "", name), make("dd", "", count(number))]),
      );
      byId("stress-problems").replaceChildren(...test.problems.map((problem) => make("li", "", problem)));
    }
  }

  async #start() {
    if (this.#isRunning) return;
    this.#refusal = "";
    const body = JSON.stringify({ scenario: this.#scenario.value });
    try {
      const answer = await fetch("/console/stress-test", {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body,
      });
      if (!answer.ok) this.#refusal = (await answer.json()).detail ?? answer.statusText;
    } catch {
      this.#refusal = "The service does not answer.";
    }
    if (this.#refusal) say(byId("stress-state"), this.#refusal);
  }
}
