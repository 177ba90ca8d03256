// The outcomes of claims, with their labels.

export const OUTCOMES = {
  claimed: "claimed",
  queued: "queued",
  "already-claimed": "repeated",
  "sold-out": "sold out",
  "not-open": "not open",
  "queue-full": "queue full",
  "lock-busy": "gave up",
  unavailable: "failed",
  "internal-error": "broken",
};

/** The number of answered claims, of all outcomes. */
export const total = (outcomes) => Object.values(outcomes).reduce((sum, value) => sum + value, 0);
