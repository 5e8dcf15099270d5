// A session of an edge node and a device, as sparkplug-client sends it. How to record it again: README.md.

const { newClient } = require("sparkplug-client");

const start = 1790000000000; // milliseconds since the Unix epoch
const client = newClient({
  serverUrl: `mqtt://127.0.0.1:${process.argv[2]}`,
  username: "",
  password: "",
  groupId: "Plant 1",
  edgeNode: "line-2",
  clientId: "line-2",
  publishDeath: true,
});

const metric = (rest, seconds) => ({ timestamp: start + 1000 * seconds, ...rest });
const send = (metrics, seconds, options) =>
  client.publishDeviceData("pump", { timestamp: start + 1000 * seconds, metrics }, options);

client.on("birth", () => {
  const node = [metric({ name: "Node Control/Rebirth", type: "Boolean", value: false }, 0)];
  client.publishNodeBirth({ timestamp: start, metrics: node }, { compress: true });
  const device = [
    metric({ name: "Flow", alias: 40, type: "Double", value: 1.25 }, -30),
    metric({ name: "Valve", alias: 41, type: "Int8", value: -7 }, -20),
    metric({ name: "Pulses", alias: 42, type: "UInt64", value: 9007199254740991 }, -10),
    metric({ name: "Serial", alias: 43, type: "String", value: "P-1" }, -40),
    metric(
      {
        name: "Log",
        alias: 44,
        type: "DataSet",
        value: { numOfColumns: 1, types: ["Double"], columns: ["x"], rows: [[0.5]] },
      },
      -5,
    ),
  ];
  client.publishDeviceBirth("pump", { timestamp: start, metrics: device }, { compress: true, algorithm: "gzip" });
  send([metric({ alias: 40, type: "Double", value: 1.5 }, 1)], 1);
  send([metric({ alias: 41, type: "Int8", value: -8 }, 2)], 2, { compress: true, algorithm: "deflate" });
  const bad = { Quality: { type: "Int32", value: 0 } };
  send([metric({ alias: 40, type: "Double", value: 99, properties: bad }, 3)], 3);
  send([metric({ alias: 40, type: "Double", value: 1.75 }, 4)], 4);
  send([metric({ alias: 43, type: "String", value: "P-2" }, 5)], 5);
  client.publishDeviceDeath("pump", { timestamp: start + 6000, metrics: [] });
  client.stop();
});
