"""Private RabbitMQ and PostgreSQL servers on this machine, for `tokengrid up` and for the tests.

Everything listens on loopback only, keeps its data in a folder of its own and uses nothing of a
server that the system may run. Knows nothing of the services that use them.
"""

from tokengrid.servers.postgresql import PostgreSQL
from tokengrid.servers.rabbitmq import RabbitMQ

__all__ = ["PostgreSQL", "RabbitMQ"]
