"""The `eligibility` resource."""
