"""Values that every room shares: all public names of the modules below, except those of `admission`."""

from claimsvc.domain.callers import *
from claimsvc.domain.claim_outcomes import *
from claimsvc.domain.claims import *
from claimsvc.domain.code_generation import *
from claimsvc.domain.codes import *
from claimsvc.domain.coupon_warnings import CouponWarning as CouponWarning
from claimsvc.domain.coupons import *
from claimsvc.domain.eligibility import *
from claimsvc.domain.limits import *
from claimsvc.domain.maintenance import *
from claimsvc.domain.operators import *
from claimsvc.domain.outcomes import ClaimOutcome as ClaimOutcome
from claimsvc.domain.outcomes import Outcome as Outcome
from claimsvc.domain.outcomes import Refusal as Refusal
from claimsvc.domain.problems import Problem as Problem
from claimsvc.domain.quotas import *
from claimsvc.domain.redemptions import *
from claimsvc.domain.tickets import *
from claimsvc.domain.times import *
