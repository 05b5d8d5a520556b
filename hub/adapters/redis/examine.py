"""Is this a Redis that the hub may rely on? For `numhub doctor`."""

from __future__ import annotations

import asyncio

from hub.adapters.redis.errors import Refused, translating
from hub.adapters.redis.link import connect
from hub.domain.errors import NumhubError

OLDEST = 7
WITHIN = 3.0


async def examine(url: str) -> tuple[bool, str]:
    """(good, one line for the operator). Never raises for what a Redis, or a wrong address, may do."""
    try:
        client = connect(url)
    except ValueError as error:
        return False, f"redis_url is no address: {error}"
    try:
        with translating():
            async with asyncio.timeout(WITHIN):
                info = await client.info()
    except Refused:
        return False, "it refuses the login; look at user and password in redis_url"
    except NumhubError as error:
        cause = f": {error.__cause__}" if error.__cause__ and str(error.__cause__) else ""
        return False, f"it does not answer{cause}".splitlines()[0]
    finally:
        await client.aclose()
    version = str(info.get("redis_version", "0"))
    policy = str(info.get("maxmemory_policy", "unknown"))
    if int(version.split(".")[0]) < OLDEST:
        return False, f"version {version}; at least {OLDEST} is needed"
    if info.get("redis_mode") == "cluster":
        return False, "it is a Redis Cluster; numhub wants a single one (with replicas, if you like)"
    if info.get("role") != "master":
        return False, "it is a replica; redis_url must name the one that takes writes"
    if int(info.get("maxmemory", 0)) and policy != "noeviction":
        return False, f"maxmemory-policy is {policy}: used nonces could be dropped and used again; set noeviction"
    return True, f"version {version}, {int(info.get('used_memory', 0)) / 1e6:.1f} MB used"
