"""The database in the state directory is damaged, another program's, a newer or an older mlade's."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from processor import deadletters
from processor.database import FILE_NAME
from tests.mosquitto import Mosquitto
from tests.mqtt_client import MqttClientFactory
from tests.plant import SIZE, configuration, measured, publish, wall_off, whole, windows
from tests.running import ProcessorFactory, ProcessorProcess

OLD = Path(__file__).parent / "states" / "schema_1.sql"
PAGE = 4096


def garbage(path: Path) -> None:
    """Write over the whole file."""
    path.write_bytes(os.urandom(10 * PAGE))


def lose_page(path: Path) -> None:
    """Lose one page within."""
    with path.open("r+b") as file:
        file.seek(5 * PAGE)
        file.write(bytes(PAGE))


def lose_oldest_samples(path: Path) -> None:
    """Lose the first page that samples are on, which the start does not look at."""
    found = path.read_bytes().find(b'{"specversion"')
    assert found > 0
    with path.open("r+b") as file:
        file.seek(found // PAGE * PAGE)
        file.write(bytes(PAGE))


def theirs(path: Path) -> None:
    """Put another program's database there."""
    path.unlink()
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE theirs (x)")


def stopped_with_samples(processor: ProcessorProcess, client_factory: MqttClientFactory, topic: str) -> Path:
    """Run a processor until four samples wait and two readings are in a window; return its database."""
    wall = wall_off(processor)
    processor.start()
    publish(client_factory(), topic, range(4 * SIZE + 2))
    processor.wait_until(lambda: measured(processor, "mlade_outbox_samples") == 4, "samples")
    assert processor.stop() == 0
    wall.unlink()
    return processor.directory / "state" / FILE_NAME


@pytest.mark.parametrize("spoil", [garbage, lose_page, theirs])
def test_a_file_that_cannot_be_used_is_set_aside(
    make_processor: ProcessorFactory, mqtt_client: MqttClientFactory, tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    """As it is, beside any earlier one; the processor says so, begins a new one, and goes on."""
    topic = f"spoiled/{spoil.__name__}"
    processor = make_processor(**configuration(tmp_path, topic))
    file = stopped_with_samples(processor, mqtt_client, topic)
    spoil(file)
    spoiled = file.read_bytes()
    earlier, aside = (Path(f"{file}.set-aside-{number}") for number in (1, 2))
    earlier.write_text("an earlier one")
    processor.start()
    assert f"ERROR {file} cannot be used (" in processor.log()
    assert f"It was set aside as {aside} and a new one was begun" in processor.log()
    publish(mqtt_client(), topic, range(100, 100 + 2 * SIZE))
    processor.wait_until(lambda: len(processor.events()) == 2, "samples")
    assert processor.stop() == 0
    assert windows(processor.events()) == whole(range(100, 100 + 2 * SIZE))
    assert (earlier.read_text(), aside.read_bytes()) == ("an earlier one", spoiled)


def test_damage_that_is_met_later_ends_the_process_and_the_next_start_mends_it(
    make_processor: ProcessorFactory, mqtt_client: MqttClientFactory, tmp_path: Path
) -> None:
    """A large file is not looked at as a whole at each start; where it is not read, damage may stay unseen for long."""
    processor = make_processor(**configuration(tmp_path, "damaged/later"))
    file = stopped_with_samples(processor, mqtt_client, "damaged/later")
    lose_oldest_samples(file)
    spoiled = file.read_bytes()
    processor.launch("checked=0")
    assert processor.wait() == 1
    assert f"ERROR Stopped: {file} is damaged (" in processor.log()
    assert "start mlade again: it then checks the whole file, and sets it aside" in processor.log()
    assert "Traceback" not in processor.log()
    processor.launch("checked=0")
    processor.wait_for_log(f"It was set aside as {file}.set-aside-1 and ")
    publish(mqtt_client(), "damaged/later", range(100, 100 + 2 * SIZE))
    processor.wait_until(lambda: len(processor.events()) == 2, "samples")
    assert processor.stop() == 0
    assert windows(processor.events()) == whole(range(100, 100 + 2 * SIZE))
    assert len(spoiled) == Path(f"{file}.set-aside-1").stat().st_size
    processor.start()
    assert processor.stop() == 0
    assert not Path(f"{file}.set-aside-2").exists()


def test_a_newer_file_is_left_alone(
    make_processor: ProcessorFactory, mqtt_client: MqttClientFactory, tmp_path: Path
) -> None:
    """After going back to an older mlade: exit 1 with what to do, and the newer one finds its state as it was."""
    processor = make_processor(**configuration(tmp_path, "newer/imu"))
    file = stopped_with_samples(processor, mqtt_client, "newer/imu")
    with closing(sqlite3.connect(file)) as database:
        (version,) = database.execute("PRAGMA user_version").fetchone()
        database.execute("PRAGMA user_version = 99")
    newer = file.read_bytes()
    processor.launch()
    assert processor.wait() == 1
    assert (
        f"{file} was written by a newer mlade (schema 99, this one knows {version}); run that version, or move the "
        "file away"
    ) in processor.log()
    assert "Traceback" not in processor.log()
    assert file.read_bytes() == newer
    with closing(sqlite3.connect(file)) as database:
        database.execute(f"PRAGMA user_version = {version}")
    processor.start()
    publish(mqtt_client(), "newer/imu", range(4 * SIZE + 2, 6 * SIZE))
    processor.wait_until(lambda: len(processor.events()) == 6, "all samples")
    assert processor.stop() == 0
    assert sorted(windows(processor.events())) == whole(range(6 * SIZE))


def test_an_older_file_is_brought_up_to_date(
    mosquitto: Mosquitto, make_processor: ProcessorFactory, mqtt_client: MqttClientFactory, tmp_path: Path
) -> None:
    """With the samples that wait, the windows under way, the filter and the dead letters."""
    processor = make_processor(**configuration(tmp_path, "older/imu", id="old", broker={"url": mosquitto.url}))
    state = processor.directory / "state"
    state.mkdir()
    with closing(sqlite3.connect(state / FILE_NAME)) as database:
        database.executescript(OLD.read_text())
        database.execute("UPDATE outbox SET created = ?", (time.time_ns(),))  # else they are too old
        database.commit()
    processor.start()
    assert "The state was brought from schema 1 to " in processor.log()
    assert "Restored the windows of 1 streams." in processor.log()
    processor.wait_until(lambda: len(processor.events()) == 2, "what waited")
    assert measured(processor, "mlade_filter_revision") == 2
    publish(mqtt_client(), "older/imu", range(12, 15))
    processor.wait_until(lambda: len(processor.events()) == 3, "a window over both")
    assert processor.stop() == 0
    assert windows(processor.events()) == whole(range(15))
    assert [event["data"]["selection"]["rule"] for event in processor.events()] == ["all", "live", "live"]
    assert [letter.payload for letter in deadletters.read(state)] == [b"not JSON"]
