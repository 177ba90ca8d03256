"""Asks the service of `tests.support.memory_store`: the answer's status, its body and its headers."""

from typing import Any

from tests.http.memory_services import Service
from tests.support.admin import ADMIN


async def claim(service: Service, coupon: str = "plenty", user: str = "ann") -> tuple[int, Any, Any]:
    body = {"user_id": user, "coupon_name": coupon}
    async with service.client.post(f"{service.url}/api/coupons/claim", json=body) as response:
        return response.status, await response.json(content_type=None), response.headers


async def get(service: Service, path: str, **options: Any) -> tuple[int, Any, Any]:
    async with service.client.get(service.url + path, **options) as response:
        return response.status, await response.json(content_type=None), response.headers


async def create(service: Service, body: Any, headers: dict[str, str] = ADMIN) -> tuple[int, Any, Any]:
    async with service.client.post(f"{service.url}/api/coupons", json=body, headers=headers) as response:
        return response.status, await response.json(content_type=None), response.headers
