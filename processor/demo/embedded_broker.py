"""A broker in pure Python, for a demo where no Mosquitto is installed: a program, and not for a plant.

`python -m processor.demo.embedded_broker HOST PORT`, MQTT 3.1.1. It ends on SIGTERM, and when its standard input does:
with the process that has started it, whatever became of that.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading

from amqtt.broker import Broker
from amqtt.session import Session


class _Broker(Broker):  # type: ignore[misc] # amqtt comes without types
    """amqtt's, without one of its mistakes."""

    async def _publish_retained_messages_for_subscription(
        self, subscription: tuple[str, int], session: Session
    ) -> None:
        """Send a client the retained messages of its own subscriptions.

        When a client connects, amqtt (0.12) calls this for the subscriptions of all clients.
        """
        if any(owner.client_id == session.client_id for owner, _ in self.subscriptions.get(subscription[0], ())):
            await super()._publish_retained_messages_for_subscription(subscription, session)


async def _serve(host: str, port: int) -> None:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ended.set)

    def wait_for_parent() -> None:
        while os.read(0, 1024):  # not through sys.stdin, whose lock this thread would hold at the end of the process
            pass
        loop.call_soon_threadsafe(ended.set)

    anonymous = {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}}
    broker = _Broker({"listeners": {"default": {"type": "tcp", "bind": f"{host}:{port}"}}, "plugins": anonymous})
    await broker.start()
    threading.Thread(target=wait_for_parent, daemon=True).start()
    await ended.wait()
    await broker.shutdown()


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    asyncio.run(_serve(sys.argv[1], int(sys.argv[2])))
