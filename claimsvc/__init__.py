"""claimsvc: claims limited-stock coupons, many at once, each exactly once."""
