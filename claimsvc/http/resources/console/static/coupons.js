// The table of coupons, with their stock, claims and locks.

import { Sparkline } from "./charts.js";
import { byId, cell, count, duration, fill, keepRows, letter, make, mark, percent, rate, row, rowHeading, say } from "./dom.js";
import { History } from "./history.js";
import { OUTCOMES, total } from "./outcomes.js";

const MOST_TURNS = 8;

// The texts for the states of a lock. The service decides the state.
const LOCKS = {
  none: ({ strategy }) => `none: ${strategy}`,
  idle: () => "idle",
  stuck: () => "stuck: not released",
  stranger: () => "unknown holder: no known instance holds it",
  "sold-out": () => "sold out: only checked",
  contended: ({ waiting_share }) => `contended: ${percent(waiting_share)} waiting`,
  shared: ({ waiting_share }) => `shared: ${percent(waiting_share)} waiting`,
  free: () => "uncontended",
};
const WITH_WAITING = ["contended", "shared"];

class CouponRow {
  #history = new History();
  #spark = new Sparkline();
  #name = make("span", "name");
  #note = make("span", "sub");
  #left = make("span", "strong");
  #of = make("span", "sub");
  #stock = make("span", "fill");
  #rate = make("span", "strong");
  #outcomes = make("span", "sub");
  #lock = make("span", "state");
  #waiting = make("span", "fill");
  #wait = make("span", "strong");
  #hold = make("span", "sub");
  #acquired = make("span", "strong");
  #busy = make("span", "sub");
  #gaveUp = make("span", "strong");
  #gaveUpAge = make("span", "sub");
  #turns = make("span", "turns");
  #holder = make("span", "sub");

  constructor() {
    this.element = row(
      rowHeading("coupon", this.#name, this.#note),
      cell("Stock left", "stock", make("span", "line", this.#left, " ", this.#of), make("span", "bar", this.#stock)),
      cell("Claims a second", "rate", make("span", "line", this.#rate), this.#spark.svg, this.#outcomes),
      cell("Lock", "lock", this.#lock, make("span", "bar thin", this.#waiting)),
      cell("Wait, hold", "", this.#wait, this.#hold),
      cell("Attempts a second", "", this.#acquired, this.#busy),
      cell("Gave up", "gave-up", this.#gaveUp, this.#gaveUpAge),
      cell("Held by", "holders", this.#turns, this.#holder),
    );
  }

  update(coupon, instances, isHottest, now) {
    const all = total(coupon.outcomes);
    this.#history.add(now, { all });
    say(this.#name, coupon.name === "other" ? "all other coupons" : coupon.name);
    say(this.#note, isHottest ? "hottest now" : all ? "" : "idle");
    mark(this.element, "hot", isHottest ? "yes" : "no");
    this.#showStock(coupon);
    say(this.#rate, rate(all));
    say(this.#outcomes, describeOutcomes(coupon.outcomes));
    this.#spark.update(this.#history, now, (values) => values.all);
    this.#showLock(coupon, instances);
  }

  #showStock({ amount, remaining }) {
    const known = amount !== null;
    say(this.#left, known ? count(remaining) : "–");
    say(this.#of, known ? (remaining ? `of ${count(amount)}` : `of ${count(amount)}, sold out`) : "");
    fill(this.#stock, known ? remaining / amount : 0);
    mark(this.#stock.parentElement, "level", !known || remaining / amount > 0.2 ? "plenty" : remaining ? "low" : "none");
  }

  #showLock(coupon, instances) {
    say(this.#lock, LOCKS[coupon.lock](coupon));
    mark(this.#lock, "state", coupon.lock);
    fill(this.#waiting, WITH_WAITING.includes(coupon.lock) ? coupon.waiting_share : 0);
    const locked = coupon.acquired > 0;
    say(this.#wait, locked ? duration(coupon.wait_ms) : "–");
    say(this.#hold, locked ? describeTurn(coupon) : "");
    say(this.#acquired, locked || coupon.busy ? `${rate(coupon.acquired)} acquired` : "–");
    const extra = [];
    if (coupon.busy) extra.push(`${rate(coupon.busy)} busy`);
    if (coupon.retries) extra.push(`${rate(coupon.retries)} retries`);
    if (coupon.lost) extra.push(`${count(coupon.lost)} lost`);
    say(this.#busy, extra.join(", "));
    say(this.#gaveUp, coupon.gave_up ? count(coupon.gave_up) : "none");
    mark(this.#gaveUp, "level", coupon.gave_up ? "bad" : "good");
    say(this.#gaveUpAge, coupon.gave_up ? `${coupon.gave_up_age_seconds} s ago` : "");
    this.#showTurns(coupon, instances);
  }

  #showTurns({ turns, holder, held_seconds, lock }, instances) {
    const shown = turns.slice(0, MOST_TURNS);
    while (this.#turns.children.length > shown.length) this.#turns.lastChild.remove();
    while (this.#turns.children.length < shown.length) this.#turns.append(make("span", "turn"));
    shown.forEach(([place, share], index) => {
      const turn = this.#turns.children[index];
      say(turn, letter(place));
      turn.title = `${instances[place]?.name ?? ""} held it ${percent(share)} of the time`;
      mark(turn, "place", String(place % 6));
      const grow = String(Math.max(share, 0.04));
      if (turn.style.flexGrow !== grow) turn.style.flexGrow = grow;
    });
    const long = holder !== null && held_seconds >= 1;
    const taking = shown.map(([place, share]) => `${letter(place)} ${percent(share)}`).join(", ");
    say(this.#holder, long ? `${letter(holder)} for ${held_seconds} s` : taking || "none");
    // A lock without contention is held for seconds, which is normal.
    mark(this.#holder, "level", lock === "stuck" ? "bad" : "good");
  }
}

function describeTurn({ turn, hold_ms }) {
  if (!turn) return hold_ms ? `held ${duration(hold_ms)}` : "";
  const parts = `Redis ${duration(turn.redis)}, transactions ${duration(turn.transactions)}, rest ${duration(turn.rest)}`;
  return `a turn ${duration(turn.redis + turn.transactions + turn.rest)}: ${parts}`;
}

function describeOutcomes(outcomes) {
  const shown = Object.entries(outcomes).filter(([name, value]) => name !== "claimed" && value > 0);
  return shown.map(([name, value]) => `${rate(value)} ${OUTCOMES[name] ?? name}`).join(", ");
}

export class CouponTable {
  #body = byId("coupons").tBodies[0];
  #rows = new Map();
  #elements = new Map();

  update(coupons, instances, now) {
    // The service sorts the coupons, the busiest first.
    const busiest = coupons.find((coupon) => total(coupon.outcomes) > 0) === coupons[0] ? coupons[0] : null;
    const names = coupons.map((coupon) => coupon.name);
    keepRows(this.#body, this.#elements, names, (name) => {
      const created = new CouponRow();
      this.#rows.set(name, created);
      return created.element;
    });
    for (const name of this.#rows.keys()) if (!this.#elements.has(name)) this.#rows.delete(name);
    for (const coupon of coupons) this.#rows.get(coupon.name).update(coupon, instances, coupon === busiest, now);
    byId("coupons").hidden = !names.length;
    byId("no-coupons").hidden = names.length > 0;
  }
}
