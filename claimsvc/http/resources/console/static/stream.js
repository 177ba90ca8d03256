// The connection to the service. It reconnects automatically, and reports when the data is outdated.

const STALE_AFTER = 3000;
const AGAIN_AFTER = 5000;
const HIDDEN_FOR = 10000;
// A connection can be dead without an error: after the computer slept, or behind a proxy that dropped it.
const DEAD_AFTER = 10000;

export class Stream {
  #url;
  #heard;
  #changed;
  #source = null;
  #heardAt = performance.now();
  #openedAt = 0;
  #state = "connecting";
  #timer = 0;

  /** `heard(kind, message)` receives pictures and beats; `changed(state, age)` the state of the connection (age in ms). */
  constructor(url, heard, changed) {
    this.#url = url;
    this.#heard = heard;
    this.#changed = changed;
    setInterval(() => this.#report(), 500);
    document.addEventListener("visibilitychange", () => this.#seen());
    addEventListener("pagehide", () => this.#close());
    addEventListener("pageshow", (event) => event.persisted && this.open());
  }

  open() {
    this.#close();
    this.#openedAt = performance.now();
    const source = (this.#source = new EventSource(this.#url));
    source.addEventListener("picture", (event) => this.#got("picture", JSON.parse(event.data)));
    source.addEventListener("beat", (event) => this.#got("beat", JSON.parse(event.data)));
    source.addEventListener("farewell", () => this.#become("stopping"));
    source.addEventListener("error", () => {
      if (source.readyState === EventSource.CLOSED) this.#refused();
      else this.#become("lost");
    });
  }

  #close() {
    clearTimeout(this.#timer);
    this.#source?.close();
    this.#source = null;
  }

  #got(kind, message) {
    this.#heardAt = performance.now();
    this.#state = "live";
    this.#heard(kind, message);
    this.#report();
  }

  #become(state) {
    this.#state = state;
    this.#report();
  }

  /** The browser does not reconnect if the response is not a stream. Find out the reason, and try again later. */
  async #refused() {
    this.#close();
    this.#become("lost");
    this.#timer = setTimeout(() => this.open(), AGAIN_AFTER);
    const asking = new AbortController();
    try {
      const answer = await fetch(this.#url, { signal: asking.signal });
      if (answer.ok) asking.abort();
      else if ((await answer.json()).type.endsWith("/too-many-viewers")) this.#become("full");
      else this.#become("stopping");
    } catch {
      // The service is unreachable, which the page shows already.
    }
  }

  /** Close the stream while the page is hidden, so that it costs the service nothing. */
  #seen() {
    clearTimeout(this.#timer);
    if (document.hidden) this.#timer = setTimeout(() => this.#close(), HIDDEN_FOR);
    else if (!this.#source) this.open();
  }

  #report() {
    const now = performance.now();
    const age = now - this.#heardAt;
    if (this.#source && age > DEAD_AFTER && now - this.#openedAt > DEAD_AFTER) this.open();
    this.#changed(this.#state === "live" && age > STALE_AFTER ? "stale" : this.#state, age);
  }
}
