"""`mlade dashboard`, in a browser, beside a real broker and real processors.

Needs Chromium; without one the tests fail and say how to get it.
"""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from playwright.sync_api import Page, expect

from processor.remote import who
from tests import models
from tests.browser.conftest import Dashboard, Dashboards, OpenPage
from tests.images import encoded, noise
from tests.integration.test_run import START, source
from tests.mosquitto import MosquittoFactory
from tests.mqtt_client import Client, MqttClientFactory
from tests.running import ProcessorFactory, ProcessorProcess

# Chromium gives up what it is loading when a network comes or goes, as Docker's do: never beside the containers.
pytestmark = pytest.mark.xdist_group("containers")

LABELS = ("idle", "<b>run</b>")
FILTER = {"rules": [{"name": "unsure", "measure": "confidence", "band": {"min": 0.5, "max": 0.7}}]}


class Line:
    """A processor whose windows have the confidence that a test wants, and what is on its topics."""

    def __init__(self, processor: ProcessorProcess, client: Client) -> None:
        self.processor = processor
        self.id = str(processor.configuration["id"])
        self._client = client
        self._sent = 0

    def page(self, dashboard: Dashboard, tab: str = "overview") -> str:
        """Return the address of its page."""
        return f"{dashboard.url}processor/{self.processor.root}?tab={tab}"

    def send(self, *confidences: float) -> None:
        """Publish a reading for each; the first label is predicted, or the second where it is negative."""
        for confidence in confidences:
            chance = confidence if confidence > 0 else 1 + confidence
            self._sent += 1
            body = {"ts": START + self._sent, "p": chance, "q": 1 - chance}
            self.publish(f"dash/{self.id}", json.dumps(body))

    def publish(self, topic: str, payload: str) -> None:
        """Publish anything."""
        self._client.publish(topic, payload)

    def filter_in_force(self) -> dict[str, Any]:
        """Return what it says of its filter, when it has said something new."""
        state: dict[str, Any] = json.loads(self._client.wait_for(f"{self.processor.root}/filter/state").payload)
        return state

    def subscribe(self) -> None:
        """Listen to what it says of its filter, from what is there now on."""
        self._client.subscribe(f"{self.processor.root}/filter/state")


@pytest.fixture
def line(make_processor: ProcessorFactory, mqtt_client: MqttClientFactory, tmp_path: Path) -> Line:
    """Run a processor whose model gives back the chances that it gets."""
    path = models.write(models.identity(2), tmp_path)
    processor = make_processor(
        sources=[],
        model={
            "path": str(path),
            "window": {"max_streams": 100_000},
            "output": {"kind": "probabilities", "labels": list(LABELS)},
        },
        filter=FILTER,
        bridges=[{"type": "files", "path": "./accepted"}, {"type": "mqtt"}],
    )
    made = Line(processor, mqtt_client())
    processor.configure(sources=[source(f"dash/{made.id}") | {"fields": ["p", "q"]}])
    processor.start()
    return made


def row(page: Page, line: Line) -> Any:  # noqa: ANN401 - Playwright's locator
    """Return a processor's row of the table."""
    return page.locator(f"[data-processor={line.id}]")


def test_every_processor_on_the_broker_is_found(line: Line, dashboard: Dashboard, open_page: OpenPage) -> None:
    """By its topics; when it goes offline, a sentence says so, there and on its page."""
    page = open_page(dashboard.url)
    expect(row(page, line)).to_have_class("well")
    row(page, line).get_by_role("link").press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text(line.id)
    line.processor.kill()
    expect(page.locator(".problems")).to_contain_text("Offline, last heard")
    expect(page.get_by_role("button", name="Pause")).to_be_disabled()
    page.get_by_role("link", name="mlade").click()
    expect(row(page, line)).to_have_class("broken")
    expect(row(page, line)).to_contain_text("Offline, last heard")


def test_a_band_is_dragged_and_applied(line: Line, dashboard: Dashboard, open_page: OpenPage) -> None:
    """At once it says what it would have kept; then what the processor answers; and who it was."""
    line.subscribe()
    line.filter_in_force()
    line.send(*[0.55] * 10, *[-0.65] * 20, *[0.85] * 30, *[0.95] * 40)
    page = open_page(line.page(dashboard))
    said = page.locator(".kept-said")
    expect(said).to_contain_text("About 30 % of the last")
    expect(said).to_contain_text("30 of 100 windows")
    expect(page.locator(".band .legend li")).to_have_text(list(LABELS))
    chart = page.locator(".band svg").bounding_box()
    assert chart
    page.mouse.move(chart["x"] + chart["width"] * 0.5, chart["y"] + 60)
    page.mouse.down()
    page.mouse.move(chart["x"] + chart["width"] * 0.6, chart["y"] + 60, steps=5)
    expect(said).to_contain_text("20 of 100 windows. The one in force: 30 %.")  # while it is held
    page.mouse.up()
    upper = page.get_by_role("slider", name="Upper end of the band")
    for _ in range(2):
        upper.press("PageUp")
    upper.press("ArrowRight")
    expect(upper).to_have_attribute("aria-valuenow", "0.91")
    expect(said).to_contain_text("50 of 100 windows")
    bar = page.get_by_role("region", name="Changes of the filter")
    expect(bar).to_contain_text("rules.unsure.band.min: 0.5 → 0.6")
    expect(bar).to_contain_text("rules.unsure.band.max: 0.7 → 0.91")
    bar.get_by_role("button", name="Apply").click()
    expect(bar).to_contain_text("In force as revision 2.")
    answer = line.filter_in_force()
    assert (answer["status"], answer["source"]) == ("applied", "topic")
    assert answer["active"]["rules"][0]["band"] == {"min": 0.6, "max": 0.91}
    page.get_by_role("tab", name="History").click()
    expect(page.locator(".revision").first).to_contain_text(f"by {who()}, over MQTT")
    page.get_by_role("button", name="Restore revision 1").click()
    question = page.get_by_role("dialog")
    expect(question).to_contain_text("Restore revision 1?")
    line.publish(f"{line.processor.root}/filter", "rules: [{name: all}]")  # somebody else is faster
    assert line.filter_in_force()["revision"] == 3
    expect(page.locator(".revision")).to_have_count(3)
    question.get_by_role("button", name="Restore").click()
    expect(bar).to_contain_text("In force as revision 4.")
    assert line.filter_in_force()["active"] == {"enabled": True, **FILTER}


def test_form_and_text_are_one_filter(line: Line, dashboard: Dashboard, open_page: OpenPage) -> None:
    """What is wrong is told at its field before anything is sent; what only the processor knows, by it."""
    line.subscribe()
    line.filter_in_force()
    page = open_page(line.page(dashboard, "filter"))
    text, bar = (
        page.get_by_label("The filter as YAML").get_by_role("textbox"),
        page.get_by_role("region", name="Changes of"),
    )
    expect(text).to_contain_text("name: unsure")
    at_most = page.get_by_role("group", name="Score").get_by_label("At most")
    at_most.fill("0.2")
    expect(text).to_contain_text("max: 0.2")
    expect(bar).to_contain_text("rules[0].band: min 0.5 is greater than max 0.2")
    expect(bar.get_by_role("button", name="Apply")).to_be_disabled()
    at_most.fill("0.8")
    before = page.get_by_role("group", name="Neighbours").get_by_label("Before")
    before.fill("1000000")
    expect(page.locator(".form")).to_contain_text("expected a number of at most 1000")
    before.fill("1000")
    expect(bar).to_contain_text("rules.unsure.context added")
    bar.get_by_role("button", name="Apply").click()
    expect(bar).to_contain_text("Rejected; revision 1 stays in force.")
    expect(bar).to_contain_text("rules[0].context.before: 1000 windows before each sample")
    assert line.filter_in_force()["status"] == "rejected"
    text.fill("enabled: true\nrules: [{name: audit, sample: 0.5}]\n")
    expect(page.locator(".rule-name")).to_have_text("audit")
    page.get_by_role("button", name="Times of the week").click()
    expect(page.get_by_label("From")).to_have_value("07:00")
    page.get_by_role("checkbox", name="sun").click()
    expect(page.locator(".week .hours").first).to_contain_text("h")
    bar.get_by_role("button", name="Apply").click()
    expect(bar).to_contain_text("In force as revision 2.")
    weekly = line.filter_in_force()["active"]["schedule"]["weekly"]
    assert weekly == [{"days": ["mon", "tue", "wed", "thu", "fri", "sat"], "from": "07:00", "to": "09:30"}]


def test_each_of_several_models_has_its_page(
    make_processor: ProcessorFactory,
    mqtt_client: MqttClientFactory,
    tmp_path: Path,
    dashboard: Dashboard,
    open_page: OpenPage,
) -> None:
    """With its figures and its filter; what is applied there is for that model alone."""
    path = str(models.write(models.identity(2), tmp_path))
    keys = {"path": path, "output": {"kind": "probabilities", "labels": list(LABELS)}}
    processor = make_processor(sources=[], models={})
    sources = [
        source(f"dash/{processor.configuration['id']}/{name}") | {"name": name, "model": name, "fields": ["p", "q"]}
        for name in ("left", "right")
    ]
    processor.configure(sources=sources, models={one["name"]: {**keys, "filter": FILTER} for one in sources})
    processor.start()
    client = mqtt_client()
    for number in range(7):
        body = json.dumps({"ts": START + number, "p": 0.6, "q": 0.4})
        client.publish(f"dash/{processor.configuration['id']}/right", body)
    page = open_page(f"{dashboard.url}processor/{processor.root}?tab=overview")
    links = page.locator("nav.models")
    expect(links.locator("[aria-current]")).to_have_text("left")
    expect(page.locator("body")).to_contain_text("Every window was kept, or none has come yet.")
    links.get_by_role("link", name="right").click()
    expect(links.locator("[aria-current]")).to_have_text("right")
    expect(page.locator("body")).to_contain_text("unsure")
    page.get_by_role("tab", name="Filter").click()
    page.get_by_label("The filter as YAML").get_by_role("textbox").fill("rules: [{name: other}]")
    bar = page.get_by_role("region", name="Changes of")
    bar.get_by_role("button", name="Apply").click()
    expect(bar).to_contain_text("In force as revision 2.")
    for name, revision, rule in (("left", 1, "unsure"), ("right", 2, "other")):
        topic = f"{processor.root}/models/{name}/filter/state"
        client.subscribe(topic)
        state = json.loads(client.wait_for(topic).payload)
        assert (state["revision"], state["active"]["rules"][0]["name"]) == (revision, rule)


def test_times_are_those_of_whoever_looks(line: Line, dashboard: Dashboard, open_page: OpenPage) -> None:
    """Wherever the dashboard runs: in a container it is mostly UTC."""
    line.subscribe()
    applied = datetime.fromisoformat(line.filter_in_force()["applied_at"])
    for zone in ("Asia/Kathmandu", "America/St_Johns"):
        page = open_page(line.page(dashboard, "history"), timezone_id=zone)
        expect(page.locator(".revision")).to_contain_text(f"{applied.astimezone(ZoneInfo(zone)):%H:%M:%S}")


def test_the_form_has_all_that_a_rule_may_say(line: Line, dashboard: Dashboard, open_page: OpenPage) -> None:
    """Values of fields, tags, and times of its own; what is missing is told at its field."""
    line.subscribe()
    line.filter_in_force()
    page = open_page(line.page(dashboard, "filter"))
    values, tags, bar = (
        page.get_by_role("group", name="Its newest values"),
        page.get_by_role("group", name="Tags"),
        page.get_by_role("region", name="Changes of"),
    )
    values.get_by_label("Add a field").click()
    page.get_by_role("option", name="q").click()
    expect(values).to_contain_text("a min, a max, or both are required")
    expect(bar.get_by_role("button", name="Apply")).to_be_disabled()
    values.get_by_label("q at most").fill("0.45")
    for tag in ("campaign", "shift"):
        tags.get_by_label("Add a tag").fill(tag)
        tags.get_by_label("Add a tag").press("Enter")
        expect(tags.get_by_label(tag, exact=True)).to_be_visible()
    tags.get_by_label("campaign", exact=True).fill("2026")
    tags.get_by_role("button", name="Remove the tag shift").click()
    expect(tags.get_by_label("shift", exact=True)).to_have_count(0)
    page.get_by_text("Times of its own").click()
    times = page.locator(".own-times")
    times.get_by_role("button", name="Times of the week").click()
    expect(times.get_by_label("From")).to_have_value("07:00")
    times.get_by_label("Time zone").fill("Europe/Berlin")
    page.get_by_role("group", name="Not alike").get_by_role("switch").click()
    distance = page.get_by_role("group", name="Not alike").get_by_label("Distance")
    distance.fill("0.5")
    distance.fill("")
    expect(page.locator(".week").locator("..")).to_contain_text("Rule unsure")
    bar.get_by_role("button", name="Apply").click()
    expect(bar).to_contain_text("In force as revision 2.")
    (rule,) = line.filter_in_force()["active"]["rules"]
    weekly = [{"from": "07:00", "to": "09:30"}]
    assert rule == FILTER["rules"][0] | {
        "schedule": {"timezone": "Europe/Berlin", "weekly": weekly},
        "where": {"fields": {"q": {"max": 0.45}}},
        "dedup": {},
        "tags": {"campaign": "2026"},
    }


def test_samples_letters_and_commands(line: Line, dashboard: Dashboard, open_page: OpenPage) -> None:
    """What was kept is drawn, what could not be used is shown, and a pause asks first."""
    page = open_page(line.page(dashboard, "samples"))
    line.send(0.55, -0.6, 0.9)
    line.publish(f"dash/{line.id}", "<script>no JSON")
    expect(page.locator(".samples li")).to_have_count(2)
    expect(page.locator(".samples li").first).to_contain_text("<b>run</b> 60 %")
    expect(page.locator(".samples li").first).to_contain_text("rule unsure: confidence 0.6, wanted 0.5 to 0.7")
    file = base64.b64encode(encoded(noise(2, 3))).decode()
    readings = {"values": [], "image": {"content_type": "image/png", "base64": file}}
    image = {"id": "1", "data": {"readings": readings, "selection": {"rule": "r"}}}
    line.publish(f"{line.processor.root}/accepted/r", json.dumps(image))
    expect(page.locator(".samples img")).to_have_js_property("naturalWidth", 3)
    page.get_by_role("tab", name="Dead letters").click()
    page.locator("summary").click()
    expect(page.locator(".letters pre")).to_have_text("<script>no JSON")
    page.get_by_role("button", name="Pause").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("keeps nothing until it is resumed")
    dialog.get_by_role("button", name="Cancel").click()
    page.get_by_role("button", name="Deliver now").click()
    page.get_by_role("dialog").get_by_role("button", name="Deliver now").click()
    expect(page.get_by_role("alert")).to_contain_text("Deliver now: Done.")
    page.get_by_role("button", name="Pause").click()
    page.get_by_role("dialog").get_by_role("button", name="Pause").click()
    expect(page.locator(".problems")).to_contain_text("Paused: it reads everything and keeps nothing")
    expect(page.get_by_role("button", name="Resume")).to_be_visible()


def test_changing_asks_for_the_password(line: Line, start_dashboard: Dashboards, open_page: OpenPage) -> None:
    """Reading does not; the name that is given stands in the history."""
    secret = {"MLADE_DASHBOARD_PASSWORD": "open sesame"}
    page = open_page(line.page(start_dashboard(**secret), "history"))
    expect(page.locator(".revision")).to_contain_text("from its own file")
    expect(page.get_by_role("button", name="Pause")).to_be_hidden()
    page.get_by_role("link", name="Sign in to change things").click()
    for typed, answer in (("wrong", "That is not the password."), (secret["MLADE_DASHBOARD_PASSWORD"], "Ada")):
        page.get_by_label("Your name").fill("Ada")
        page.get_by_label("Password").fill(typed)
        page.get_by_role("button", name="Sign in").click()
        expect(page.locator("[role=alert], header")).to_contain_text(answer)
    page.get_by_role("tab", name="Filter").click()
    page.get_by_role("switch", name="Collect").click()
    page.get_by_role("button", name="Apply").click()
    page.get_by_role("tab", name="History").click()
    expect(page.locator(".revision").first).to_contain_text("by Ada, over MQTT")
    expect(page.locator(".problems")).to_contain_text("Its filter is switched off")


def test_fifty_processors_at_once(
    dashboard: Dashboard, line: Line, open_page: OpenPage, mqtt_client: MqttClientFactory
) -> None:
    """Those with problems first, and each can be found."""
    client = mqtt_client()
    client.subscribe(f"{line.processor.root}/metrics")
    metrics = json.loads(client.wait_for(f"{line.processor.root}/metrics").payload)
    names = [f"hall-{number:02}" for number in range(50)]
    long_ago = datetime(2026, 1, 5, 10, 30, tzinfo=UTC)
    try:
        for number, name in enumerate(names):
            figures = (
                metrics
                | {
                    "rates": {"messages": number, "accepted": 1},
                    "blocked": "no room" if number == 33 else None,
                }
                | ({"time": long_ago.isoformat()} if number == 44 else {})
            )
            client.publish(f"mlade/{name}/status", "offline" if number == 44 else "online", retain=True)
            client.publish(f"mlade/{name}/metrics", json.dumps(figures), retain=True)
        page = open_page(dashboard.url)
        halls = page.locator("tbody tr[data-processor^=hall-]")
        expect(halls).to_have_count(50)
        expect(halls.nth(0)).to_contain_text("hall-33 Takes nothing in: no room.")
        expect(halls.nth(1)).to_contain_text("hall-44")
        page.get_by_role("button", name="Messages/s").click()
        expect(halls.nth(0)).to_contain_text("hall-49")
        page.get_by_role("searchbox").fill("hall-07")
        expect(halls).to_have_count(1)
        page.get_by_role("searchbox").fill("hall-44")
        page.get_by_role("link", name="hall-44").click()
        expect(page.locator(".series .when")).to_contain_text(f"{long_ago.astimezone():%H:%M}")  # of then, not of now
        page.go_back()
        page.set_viewport_size({"width": 390, "height": 800})
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= 390, "nothing is cut off on a phone"
    finally:
        for name in names:
            client.publish(f"mlade/{name}/status", "", retain=True)
            client.publish(f"mlade/{name}/metrics", "", retain=True)


def test_it_waits_for_a_broker_that_is_away_and_may_only_read(
    start_dashboard: Dashboards,
    mosquitto_factory: MosquittoFactory,
    mqtt_client: MqttClientFactory,
    open_page: OpenPage,
) -> None:
    """It says so; then it shows what it would else let change."""
    broker = mosquitto_factory()
    broker.stop()
    page = open_page(start_dashboard("--read-only", broker=broker.url).url)
    banner = page.locator(".banner")
    expect(banner).to_contain_text("No connection to the broker")
    expect(page.locator(".empty")).to_contain_text("As soon as the broker is there")
    broker.start()
    expect(banner).to_be_empty()
    client = mqtt_client(broker=broker)
    client.publish("mlade/line-9/status", "online", retain=True)
    state = {"status": "applied", "revision": 4, "sha256": "0", "source": "topic", "active": FILTER}
    client.publish("mlade/line-9/filter/state", json.dumps(state), retain=True)
    expect(page.locator("[data-processor=line-9]")).to_contain_text("Online, and has told no figures yet.")
    page.get_by_role("link", name="line-9").click()
    expect(page.get_by_role("banner")).to_contain_text("Read only")
    page.get_by_role("tab", name="Filter").click()
    expect(page.locator(".form").get_by_label("At least")).to_have_value("0.5")
    expect(page.locator(".form").get_by_label("At least")).to_be_disabled()
    expect(page.get_by_role("button", name="Pause")).to_have_count(0)
