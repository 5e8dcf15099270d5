"""An Azure IoT Hub for tests, as strict as the service; README.md says what it enforces."""

from tests.iothub.faults import Faults
from tests.iothub.hub import Hub
from tests.iothub.identity import Device
from tests.iothub.messages import Event

__all__ = ["Device", "Event", "Faults", "Hub"]
