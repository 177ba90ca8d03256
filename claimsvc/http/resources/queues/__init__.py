"""The `queues` resource: queues of coupons, their tickets, and dead letters."""
