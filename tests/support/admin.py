"""The key for everything that services under test are given, its digest, and the header that shows it."""

import hashlib

ADMIN_KEY = "an-admin-key"
ADMIN_DIGEST = hashlib.sha256(ADMIN_KEY.encode()).hexdigest()
ADMIN = {"Authorization": f"Bearer {ADMIN_KEY}"}
