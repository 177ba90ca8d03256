// The connection to the service: it comes back by itself, and says when what is shown has grown old.

const STALE_AFTER = 3000;
const AGAIN_AFTER = 5000;
const HIDDEN_FOR = 10000;

export class Stream {
  #url;
  #heard;
  #changed;
  #source = null;
  #heardAt = performance.now();
  #state = "connecting";
  #timer = 0;

  /** `heard(message)` gets each picture, or null for a beat; `changed(state, age)` is told how the connection is. */
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
    const source = (this.#source = new EventSource(this.#url));
    source.addEventListener("picture", (event) => this.#got(JSON.parse(event.data)));
    source.addEventListener("beat", () => this.#got(null));
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

  #got(message) {
    this.#heardAt = performance.now();
    this.#state = "live";
    this.#heard(message);
    this.#report();
  }

  #become(state) {
    this.#state = state;
    this.#report();
  }

  /** The browser gives up when the answer is not a stream. Ask why, and try again later. */
  async #refused() {
    this.#become("lost");
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.open(), AGAIN_AFTER);
    try {
      const answer = await fetch(this.#url, { method: "HEAD" });
      if (answer.status === 503) this.#become("full");
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
    const age = performance.now() - this.#heardAt;
    this.#changed(this.#state === "live" && age > STALE_AFTER ? "stale" : this.#state, age);
  }
}
