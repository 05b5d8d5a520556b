"""Real Kafka, PostgreSQL and Redis on this machine, from local binaries: for developers, tests and the demo.

Each service has its own free port on loopback, its own data folder and foreground child processes that are ended by
their pid. Nothing here is for production: there the services are somebody's who watches over them.
"""

from hub.app.local.kafka import LocalKafka, TlsFiles
from hub.app.local.postgres import LocalPostgres
from hub.app.local.process import LocalError, LocalUnavailable
from hub.app.local.redis import LocalRedis

__all__ = ["LocalError", "LocalKafka", "LocalPostgres", "LocalRedis", "LocalUnavailable", "TlsFiles"]
