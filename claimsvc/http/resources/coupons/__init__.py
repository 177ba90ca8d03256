"""The `coupons` resource."""
