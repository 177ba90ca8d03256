// What claims come to, and what that is called here.

export const OUTCOMES = {
  claimed: "claimed",
  "already-claimed": "repeated",
  "sold-out": "sold out",
  "not-open": "not open",
  "lock-busy": "gave up",
  unavailable: "failed",
  "internal-error": "broken",
};

/** Claims answered, whatever the answer. */
export const total = (outcomes) => Object.values(outcomes).reduce((sum, value) => sum + value, 0);
