// The connection to the service: it comes back by itself, and says when what is shown has grown old.

const STALE_AFTER = 3000;
const AGAIN_AFTER = 5000;
const HIDDEN_FOR = 10000;
// A connection may be dead without anybody having said so: after sleep, or behind a proxy that forgot it.
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

  /** `heard(kind, message)` gets each picture, and each beat; `changed(state, age)` is told how the connection is. */
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

  /** The browser gives up when the answer is not a stream. Ask why, and try again later. */
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
      // It is gone; that is shown already.
    }
  }

  /** Who does not look costs nobody anything. */
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
