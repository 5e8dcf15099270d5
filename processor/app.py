"""All the wiring, in `build`; start and stop order; what happens when a thread dies."""

from __future__ import annotations

import logging
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from processor import bridges, own_topics, topics
from processor.admission import Bounds
from processor.assembly import most_messages
from processor.brokerless import Brokerless
from processor.clock import AgeClock, SystemClock
from processor.cloud import CloudLink
from processor.copies import filters, identifier
from processor.database import FILE_NAME
from processor.delivery import Delivery
from processor.division import Division
from processor.errors import MladeError, SessionTakenOver, StateFull
from processor.exchange.beginning import Beginning, begin, model_problems
from processor.exchange.exchange import Exchange
from processor.exchange.loader import Loader
from processor.health import HealthServer
from processor.lanes import open_lane
from processor.live_commands import Commands
from processor.metrics import Metrics
from processor.mqtt.connection import Connection
from processor.mqtt.sparkplug_host import SparkplugHost
from processor.mqtt.subscriptions import Subscription
from processor.pipeline import Pipeline
from processor.receipts import Receipts
from processor.registry import references
from processor.reporting import Reporting
from processor.retained import RetainedCopies
from processor.session import DROPPED_TOPIC, BrokerSession
from processor.settings import HubBridge, Settings, client_options, load_filter
from processor.slot_state import SlotChanges
from processor.steering import Steering
from processor.store import Changes, Store
from processor.twin import Twin
from processor.types import MODEL_SLOT, NS

log = logging.getLogger(__name__)

_SECONDS_PER_IMAGE: Final = 0.03
"""Until it is known."""
_STOP_PATIENCE: Final = 4.3
"""Seconds for everything to end after a signal."""
_PIPELINE_PATIENCE: Final = 1.7
"""Seconds of them for the batch underway and what was read already."""


def build(settings: Settings, stop: Callable[[], None]) -> App:
    """Put a processor together. Nothing runs yet, but the state directory is ours.

    Args:
        settings: the configuration.
        stop: called, from whichever thread, when the processor cannot go on.

    Raises:
        ConfigurationError: filter, model and sources do not fit.
        ModelError: the model cannot be loaded.
        StateError: the state directory cannot be used.
    """
    clock = SystemClock()
    metrics = Metrics(several_models=settings.model is None)
    broker, outbox, link = settings.broker, settings.outbox, CloudLink()
    resumes = broker is not None and broker.session_expiry > 0
    store, beginnings = _open_state(settings, clock)
    age = AgeClock(clock, store.meta("age"), outbox.max_age)
    receipts = Receipts(store.receipts())
    subscriptions = _subscriptions(settings)
    session = BrokerSession(
        store.meta("session"),
        [one.filter for one in subscriptions],
        wanted=resumes,
        metrics=metrics,
    )
    copies = RetainedCopies(session, receipts, mqtt_5=broker is None or broker.protocol != "3.1.1")
    twin_memory = store.meta("twin")
    window_size = twin_memory["window_size"] if twin_memory and settings.legacy else None
    lanes = [
        open_lane(
            beginning,
            store.slot(beginning.slot.name),
            window_size=window_size if beginning.slot.name == MODEL_SLOT else None,
            paused=bool(store.meta("paused")),
            copies=copies,
            held=lambda: session.held,
        )
        for beginning in beginnings
    ]
    beginnings.clear()  # they would hold models after others have taken over
    deliveries = _deliveries(settings, store, clock, link)

    def accepted(session_present: bool) -> None:  # noqa: FBT001 - the connection calls it so
        receipts.connected(connection.connects, session_present=session_present)
        session.connected(session_present=session_present)
        if not session_present:
            with suppress(StateFull):  # what we know stays, and holds little of the new session for long
                store.forget_session({"session": session.memory()})

    def connected(_session_present: bool) -> None:  # noqa: FBT001 - as above
        steering.connected()
        reporting.connected()

    connection = _connect(settings, subscriptions, session, accepted, connected)
    link.on_request(connection.wake)
    reporting = Reporting(
        root=settings.root,
        source=connection,
        lanes=lanes,
        store=store,
        deliveries=deliveries,
        metrics=metrics,
        clock=clock,
        publish_inference=settings.publish_inference,
        publish_every=settings.metrics.publish_every / NS,
        extra=lambda: {
            ("broker_connected",): math.nan if broker is None else float(connection.online),
            ("broker_connects",): float(connection.connects),
            ("received_bytes",): float(connection.bytes_read),
            ("outbox_max_bytes",): float(outbox.max_bytes),
            **{("model_look_failures", one.lane): float(one.failures) for one in loaders},
        },
        outputs=link if settings.hub is not None and settings.hub.edge else None,
    )
    twin = Twin(link=link, lanes=lanes, legacy=settings.legacy, kept=twin_memory)
    loaders = [Loader(lane.name, lane.computation.recent, connection.wake) for lane in lanes]
    exchanges = [
        Exchange(
            lane=lane,
            source=connection,
            loader=loader,
            problems=model_problems,
            metrics=metrics,
            clock=clock,
            report=twin.report,
            in_force=lambda: [one.models.in_force.fetched for one in lanes],
        )
        for lane, loader in zip(lanes, loaders, strict=True)
    ]
    commands = Commands(
        lanes=lanes,
        store=store,
        deliveries=deliveries,
        reporting=reporting,
        clock=clock,
        reloads={one.lane.name: one.reload for one in exchanges},
    )
    steering = Steering(
        root=settings.root,
        processor=settings.id,
        source=connection,
        link=link,
        lanes=lanes,
        exchanges=exchanges,
        twin=twin,
        store=store,
        commands=commands,
        metrics=metrics,
        reporting=reporting,
        clock=clock,
        age=age,
        session=session,
        subscriptions={one.filter: one.identifier for one in subscriptions if one.control},
    )

    def notify() -> None:
        for delivery in deliveries:
            delivery.notify()

    pipeline = Pipeline(
        source=connection,
        requests=[link.take, *(loader.take for loader in loaders)],
        division=Division.of(settings),
        lanes=lanes,
        store=store,
        receipts=receipts,
        steering=steering,
        reporting=reporting,
        metrics=metrics,
        clock=clock,
        age=age,
        notify=notify,
        resumes=resumes,
        max_batch=min(min(slot.model.batch.messages, most_messages(slot)) for slot in settings.slots),
        seconds_per_message=_SECONDS_PER_IMAGE if any(one.format == "image" for one in settings.sources) else 0.0,
        max_delay=min(slot.model.batch.max_delay for slot in settings.slots) / NS,
    )
    store.drop_other_slots()
    store.commit(
        Changes(
            meta={"age": age.memory(), "session": session.memory()},
            slots={lane.name: SlotChanges(meta=lane.memory()) for lane in lanes},
        ),
        0,
    )
    hosts = _sparkplug_hosts(settings, connection, clock)
    return App(settings, store, connection, pipeline, reporting, deliveries, loaders, metrics, stop, hosts)


def _open_state(settings: Settings, clock: SystemClock) -> tuple[Store, list[Beginning]]:
    """Return the store, and with which models and filters to go on; where that cannot be, the store is closed again."""
    configured = [(slot, *load_filter(slot)) for slot in settings.slots]
    begun = None
    if not (settings.state_path / FILE_NAME).exists():  # where something does not fit, there never is any state
        begun = [begin(*one, lambda _: None, clock.wall()) for one in configured]
    outbox = settings.outbox
    store = Store(
        settings.state_path,
        durability=outbox.durability,
        bounds=Bounds(outbox.max_bytes, outbox.max_age, outbox.when_full),
        bridges=[bridge.name for bridge in settings.bridges],
        slots=[slot.name for slot in settings.slots],
    )
    try:
        return store, begun or [begin(*one, store.slot(one[0].name).meta, clock.wall()) for one in configured]
    except BaseException:
        store.close()
        raise


def _deliveries(settings: Settings, store: Store, clock: SystemClock, link: CloudLink) -> list[Delivery]:
    """Return one for each bridge. The first of those to a hub has the link: one cloud steers."""
    hub = next((bridge.name for bridge in settings.bridges if isinstance(bridge, HubBridge)), None)
    deliveries = []
    for bridge in settings.bridges:
        own = link if bridge.name == hub else None
        made = bridges.make(bridge, settings, clock, link=own, memory=store.bridge_memory(bridge.name))
        deliveries.append(Delivery(bridge.name, made, store.outbox(bridge.name), clock))
        if own is not None:
            own.on_said(deliveries[-1].notify)
    return deliveries


def _sparkplug_hosts(
    settings: Settings, connection: Connection | Brokerless, clock: SystemClock
) -> list[SparkplugHost]:
    """Return the host applications that Sparkplug's nodes are told of."""
    named = dict.fromkeys(source.sparkplug.host_id for source in settings.sources)
    return [
        SparkplugHost(
            host_id,
            client_id=f"{settings.client_id}-host-{host_id}",
            options=client_options(settings),
            listening=lambda: isinstance(connection, Connection) and connection.subscribed,
            clock=clock,
        )
        for host_id in named
        if host_id is not None
    ]


def _subscriptions(settings: Settings) -> list[Subscription]:
    """Return our own topics and the sources' filters; the live filter first, so that it judges the first reading."""
    if settings.broker is None:
        return []
    data = [(text, settings.sources[position].qos) for position, text in filters(settings.sources)]
    own = [
        (one.at(own_root), one.listen)
        for one in own_topics.OWN_TOPICS
        if one.listen is not None
        for own_root in ([slot.root for slot in settings.slots] if one.per_model else [settings.root])
    ]
    subscriptions = [
        *(Subscription(text, qos, identifier(text), control=True) for text, qos in own),
        *(Subscription(text, qos, identifier(text)) for text, qos in data),
    ]
    if not any(topics.matches(text, DROPPED_TOPIC) for text, _ in data):  # else somebody wants it as a reading
        number = identifier(DROPPED_TOPIC)
        subscriptions.append(Subscription(DROPPED_TOPIC, 0, number, control=True, optional=True))
    return subscriptions


def _connect(
    settings: Settings,
    subscriptions: Sequence[Subscription],
    session: BrokerSession,
    accepted: Callable[[bool], None],
    connected: Callable[[bool], None],
) -> Connection | Brokerless:
    broker = settings.broker
    if broker is None:
        return Brokerless()
    configured = {one.filter: one for one in subscriptions}

    def wanted() -> list[Subscription]:
        return [
            configured.get(text) or Subscription(text, 1, identifier(text), optional=True)
            for text in session.to_subscribe()
        ]

    def tell(sentence: str) -> None:
        log.log(logging.WARNING if connection.missing else logging.INFO, sentence)

    connection = Connection(
        client_id=settings.client_id,
        session_expiry=broker.session_expiry / NS,
        receive_maximum=broker.receive_maximum,
        max_payload=broker.max_payload,
        will_topic=own_topics.STATUS.at(settings.root),
        will_payload=b"offline",
        subscriptions=wanted,
        on_accepted=accepted,
        on_connected=connected,
        on_unsubscribed=session.unsubscribed,
        on_state=tell,
        **client_options(settings),
    )
    return connection


@dataclass(slots=True)
class App:
    """A processor. `start` returns at once; `close` ends it and gives the state directory back.

    Attributes:
        settings: as configured.
        store: the state.
        connection: to the broker.
        pipeline: the loop.
        reporting: status and metrics.
        deliveries: one a bridge.
        loaders: of models, one a lane.
        metrics: counters.
        stop: called when a thread died.
        hosts: Sparkplug's host applications, which tell nodes that we listen.
        failure: why the processor cannot go on; None while it can.
        taken_over: another processor has our id now, and speaks for it.
        port: where /healthz answers; 0 when it does not.
    """

    settings: Settings
    store: Store
    connection: Connection | Brokerless
    pipeline: Pipeline
    reporting: Reporting
    deliveries: Sequence[Delivery]
    loaders: Sequence[Loader]
    metrics: Metrics
    stop: Callable[[], None]
    hosts: Sequence[SparkplugHost] = ()
    failure: str | None = None
    taken_over: bool = False
    port: int = 0
    _threads: list[threading.Thread] | None = None
    _health: HealthServer | None = None

    def start(self) -> None:
        """Start the threads."""
        self._threads = [self._thread("pipeline", self.pipeline.run)]
        self._threads += [self._thread(f"bridge-{one.name}", one.run) for one in self.deliveries]
        self._threads += [self._thread("sparkplug-host", one.run) for one in self.hosts]
        if self.settings.http is not None:
            self._serve(self.settings.http.listen)
        # They are not waited for: what they have loaded is lost with the process, and what was wanted is on disk.
        loading = [self._thread("model-loader", one.run) for one in self.loaders]
        for thread in (*self._threads, *loading):
            thread.start()

    def _thread(self, name: str, run: Callable[[], None]) -> threading.Thread:
        def guarded() -> None:
            try:
                run()
            except SessionTakenOver as error:
                self.taken_over = True
                self._fail(str(error))
            except MladeError as error:
                self._fail(str(error))
            except Exception:
                log.exception("The %s thread ended with an error that it should not have; please report it.", name)
                self._fail(f"the {name} thread ended unexpectedly")

        return threading.Thread(target=guarded, name=name, daemon=True)

    def _fail(self, reason: str) -> None:
        self.failure = self.failure or reason
        self.stop()

    def _serve(self, listen: str) -> None:
        try:
            self._health = HealthServer(
                listen,
                healthy=lambda: {"status": "ok", "id": self.settings.id},
                waiting_for=self.waiting_for,
                metrics=self._exposition,
            )
            self.port = self._health.port
            log.info("Health and metrics on %s, port %d.", listen.rpartition(":")[0], self.port)
        except OSError as error:
            # Watching is not worth more than collecting.
            log.error("http.listen %s cannot be used (%s): no /healthz, /readyz, /metrics.", listen, error)  # noqa: TRY400

    def _exposition(self) -> bytes:
        self.reporting.refresh()
        return self.metrics.exposition()

    def waiting_for(self) -> list[str]:
        """Return what keeps the processor from doing its job, as sentences. Any thread."""
        reasons = []
        if self.connection.missing:
            reasons.append(f"broker: {self.connection.state}")
        elif self.connection.subscribing:
            reasons.append("broker: it has not answered our subscriptions yet")
        reasons += [f"subscription {text}: {reason}" for text, reason in self.connection.refused.items()]
        reasons += [trouble for one in self.hosts if (trouble := one.trouble)]
        return reasons + self.reporting.waiting_for()

    def close(self) -> bool:
        """Finish the batch underway, flush the bridges, say goodbye, and give the state directory back.

        Returns:
            Whether all threads ended in time.
        """
        threads = self._threads or []
        deadline = time.monotonic() + _STOP_PATIENCE
        self.pipeline.stop()
        self.connection.wake()
        for loader in self.loaders:
            loader.stop()
        for host in self.hosts:
            host.stop()
        for thread in threads[:1]:
            thread.join(_PIPELINE_PATIENCE)
        for delivery in self.deliveries:
            delivery.stop()
        if not any(thread.is_alive() for thread in threads[:1]):  # the connection is its while it lives
            farewell = (
                []
                if self.taken_over
                else [(own_topics.STATUS.at(self.settings.root), b"offline", own_topics.STATUS.retain)]
            )
            self.connection.close(farewell, timeout=0.5)
        for thread in threads[1:]:
            thread.join(max(0.0, deadline - time.monotonic()))
        if self._health is not None:
            self._health.close()
        if any(thread.is_alive() for thread in threads):
            log.warning("Not everything ended in time; what is undelivered stays in the outbox.")
            return False
        self.store.close()
        return True


def run(settings: Settings) -> int:
    """Run a processor until a signal or a failure; return the exit code."""
    stop = threading.Event()
    app = build(settings, stop.set)  # it may take long, and a signal ends us at once until that is done
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    log.info(
        "Processor %s: %d source(s), model %s, %d bridge(s), state in %s.",
        settings.id, len(settings.sources),
        ", ".join(references.parse(slot.model.path).text.rpartition("/")[2] for slot in settings.slots),
        len(settings.bridges), settings.path(settings.state_dir),
    )  # fmt: skip
    app.start()
    stop.wait()
    ended = app.close()
    code = 0
    if app.failure is not None:
        log.error("Stopped: %s", app.failure)
        code = 1
    else:
        log.info("Stopped; %d samples wait in the outbox.", app.store.totals.rows)
    if not ended or threading.active_count() > 1:
        # A thread is inside a long call of the model, of a bridge, or of a library that a bridge uses, and Python would
        # wait for it. What it does is not acknowledged, so nothing is lost.
        logging.shutdown()
        os._exit(code)
    return code
