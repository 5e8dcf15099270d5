// The table of processors. Rows come ready to be shown; sorting and finding happen here.
const COLUMNS = [
  { key: "id", title: "Processor", kind: "name" },
  { key: "messages", title: "Messages/s", kind: "number" },
  { key: "kept", title: "Kept/s", kind: "number" },
  { key: "share", title: "Share kept", kind: "number", hint: "of the windows of the last hour" },
  { key: "spark", title: "Last hour", kind: "spark", fixed: true },
  { key: "outbox", title: "Outbox", kind: "number", hint: "samples that wait to be delivered" },
  { key: "bridges", title: "Bridges", kind: "bridges", fixed: true },
  { key: "revision", title: "Filter", kind: "number", hint: "revision of the filter in force" },
];

export default {
  template: `
    <div class="fleet">
      <div class="fleet-tools" v-if="rows.length > 8">
        <input type="search" v-model="wanted" placeholder="Find a processor" aria-label="Find a processor">
        <span class="muted" role="status">{{ wanted ? shown.length + " of " + rows.length : "" }}</span>
      </div>
      <table class="table">
        <caption class="sr-only">Processors, those with problems first</caption>
        <thead><tr>
          <th v-for="column in columns" scope="col" :class="column.kind" :title="column.hint" :aria-sort="direction(column)">
            <span v-if="column.fixed">{{ column.title }}</span>
            <button v-else type="button" @click="sort(column)">{{ column.title }}<span class="arrow" aria-hidden="true">{{ arrow(column) }}</span></button>
          </th>
        </tr></thead>
        <tbody>
          <tr v-for="row in shown" :key="row.root" :data-processor="row.id" :class="row.level">
            <th scope="row" class="name">
              <div class="who">
                <span class="dot" aria-hidden="true"></span>
                <div>
                  <a :href="row.href">{{ row.id }}</a> <span class="state">{{ row.state }}</span>
                  <p v-for="sentence in row.problems">{{ sentence }}</p>
                </div>
              </div>
            </th>
            <td class="number" data-title="Messages/s">{{ row.said.messages }}</td>
            <td class="number" data-title="Kept/s">{{ row.said.kept }}</td>
            <td class="number" data-title="Share kept">{{ row.said.share }}</td>
            <td class="spark" data-title="Last hour">
              <svg viewBox="0 0 100 20" preserveAspectRatio="none" role="img" :aria-label="row.spark_said">
                <path :d="row.spark" vector-effect="non-scaling-stroke"/>
              </svg>
            </td>
            <td class="number" data-title="Outbox" :title="row.outbox_said">{{ row.said.outbox }}</td>
            <td class="bridges" data-title="Bridges">
              <span v-for="bridge in row.bridges" class="chip" :class="bridge.level" :title="bridge.said">{{ bridge.name }}<span class="sr-only"> {{ bridge.said }}</span></span>
            </td>
            <td class="number" data-title="Filter">{{ row.said.revision }}</td>
          </tr>
        </tbody>
      </table>
    </div>`,
  props: { rows: Array },
  data() {
    return { columns: COLUMNS, wanted: "", by: null, down: false };
  },
  computed: {
    shown() {
      const wanted = this.wanted.toLowerCase();
      const rows = this.rows.filter((row) => row.id.toLowerCase().includes(wanted));
      if (this.by === null) return rows; // as they come: problems first
      const sign = this.down ? -1 : 1;
      return rows.sort((a, b) => sign * (a.sort[this.by] > b.sort[this.by] ? 1 : a.sort[this.by] < b.sort[this.by] ? -1 : 0));
    },
  },
  methods: {
    // First click: the order in which one looks for trouble; then the other; then problems first again.
    sort(column) {
      const first = column.kind === "number";
      if (this.by !== column.key) [this.by, this.down] = [column.key, first];
      else if (this.down === first) this.down = !first;
      else this.by = null;
    },
    direction(column) {
      return this.by === column.key ? (this.down ? "descending" : "ascending") : undefined;
    },
    arrow(column) {
      return this.by === column.key ? (this.down ? " ↓" : " ↑") : "";
    },
  },
};
