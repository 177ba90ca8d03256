"""How claims of a coupon are admitted: strategies, and the batching they share."""
