// A histogram of scores by label with a band on it that can be dragged, by hand or by key.
const HEIGHT = 200;
const FOOT = 22;

export default {
  template: `
    <div class="band" ref="box">
      <svg :width="width" :height="${HEIGHT}" :viewBox="'0 0 ' + width + ' ${HEIGHT}'" ref="svg" role="group" :aria-label="title">
        <g v-for="row in stacked" :class="row.colour">
          <path :d="row.path"><title>{{ row.label }}</title></path>
        </g>
        <g class="axis">
          <line x1="0" :x2="width" :y1="base" :y2="base"/>
          <text v-for="tick in ticks" :x="tick.x" :y="base + 16" :text-anchor="tick.anchor">{{ tick.text }}</text>
        </g>
        <template v-if="banded">
          <g class="inside" v-if="!outside">
            <rect :x="x(low)" y="0" :width="Math.max(x(high) - x(low), 1)" :height="base"
                  :class="{ movable: editable }" @pointerdown="grab($event, 'both')"/>
          </g>
          <g class="inside" v-else>
            <rect x="0" y="0" :width="Math.max(x(low), 0)" :height="base"/>
            <rect :x="x(high)" y="0" :width="Math.max(width - x(high), 0)" :height="base"/>
          </g>
          <g v-for="end in ends" class="handle" :class="{ open: end.open }" :transform="'translate(' + x(end.value) + ' 0)'"
             :role="editable ? 'slider' : 'img'" :tabindex="editable ? 0 : -1" :aria-label="end.title"
             :aria-valuemin="from" :aria-valuemax="to" :aria-valuenow="end.value" :aria-valuetext="end.open ? 'no limit' : format(end.value)"
             @pointerdown="grab($event, end.key)" @keydown="press($event, end)">
            <line y1="0" :y2="base"/>
            <rect class="grip" x="-5" :y="base / 2 - 16" width="10" height="32" rx="4" v-if="editable"/>
            <rect class="reach" x="-14" y="0" width="28" :height="base" v-if="editable"/>
            <text :x="end.key === 'min' ? -9 : 9" y="13" :text-anchor="end.key === 'min' ? 'end' : 'start'">{{ end.open ? "" : format(end.value) }}</text>
          </g>
        </template>
      </svg>
      <ul class="legend"><li v-for="row in series"><span :class="row.colour" aria-hidden="true"></span>{{ row.label }}</li></ul>
    </div>`,
  props: { title: String, start: Number, binwidth: Number, series: Array, min: Number, max: Number, banded: Boolean, outside: Boolean, editable: Boolean },
  emits: ["band"],
  data() {
    return { width: 600, base: HEIGHT - FOOT, grabbed: null, held: null, sent: 0, timer: null };
  },
  mounted() {
    this.observer = new ResizeObserver(() => (this.width = Math.max(this.$refs.box.clientWidth, 200)));
    this.observer.observe(this.$refs.box);
    this.width = Math.max(this.$refs.box.clientWidth, 200);
  },
  unmounted() {
    this.observer.disconnect();
  },
  computed: {
    bins() {
      return this.series.length ? this.series[0].counts.length : 100;
    },
    from() {
      return this.start;
    },
    to() {
      return this.round(this.start + this.binwidth * this.bins);
    },
    // While a hand holds it, what the hand says; what comes from the server follows when it lets go.
    band() {
      return this.held || { min: this.min ?? null, max: this.max ?? null };
    },
    low() {
      return this.band.min ?? this.from;
    },
    high() {
      return this.band.max ?? this.to;
    },
    ends() {
      return [
        { key: "min", value: this.low, open: this.band.min === null, title: "Lower end of the band" },
        { key: "max", value: this.high, open: this.band.max === null, title: "Upper end of the band" },
      ];
    },
    // A column's height is the square root of its count, so that few scores beside many can be seen; its colours
    // divide it by their share.
    stacked() {
      const sums = new Array(this.bins).fill(0);
      for (const row of this.series) row.counts.forEach((count, bin) => (sums[bin] += count));
      const most = Math.sqrt(Math.max(1, ...sums));
      const below = new Array(this.bins).fill(0);
      const scale = sums.map((sum) => ((this.base - 18) * Math.sqrt(sum)) / most / Math.max(sum, 1));
      const step = this.width / this.bins;
      return this.series.map((row) => {
        let path = "";
        row.counts.forEach((count, bin) => {
          if (!count) return;
          const y = this.base - scale[bin] * (below[bin] + count);
          const height = scale[bin] * count;
          path += `M${(bin * step).toFixed(2)},${y.toFixed(2)}h${Math.max(step - 0.6, 0.6).toFixed(2)}v${height.toFixed(2)}h${-Math.max(step - 0.6, 0.6).toFixed(2)}z`;
          below[bin] += count;
        });
        return { label: row.label, colour: row.colour, path };
      });
    },
    ticks() {
      const count = this.width < 420 ? 4 : 10;
      return Array.from({ length: count + 1 }, (_, tick) => ({
        x: (this.width * tick) / count,
        text: this.format(this.from + ((this.to - this.from) * tick) / count),
        anchor: tick === 0 ? "start" : tick === count ? "end" : "middle",
      }));
    },
  },
  methods: {
    x(value) {
      return Math.min(Math.max(((value - this.from) / (this.to - this.from)) * this.width, 0), this.width);
    },
    round(value) {
      return Number((Math.round(value / this.binwidth) * this.binwidth).toPrecision(8));
    },
    format(value) {
      const digits = Math.max(0, Math.ceil(-Math.log10(this.binwidth) - 0.01));
      return value.toFixed(Math.min(digits, 6));
    },
    clamp(value) {
      return this.round(Math.min(Math.max(value, this.from), this.to));
    },
    at(event) {
      const box = this.$refs.svg.getBoundingClientRect();
      return this.from + ((event.clientX - box.left) / box.width) * (this.to - this.from);
    },
    grab(event, what) {
      if (!this.editable || (event.button !== undefined && event.button !== 0)) return;
      event.preventDefault();
      const target = event.currentTarget;
      target.focus?.();
      target.setPointerCapture(event.pointerId);
      const begin = { at: this.at(event), low: this.low, high: this.high, ...this.band };
      const move = (moved) => this.drag(what, begin, this.at(moved) - begin.at);
      const drop = () => {
        target.removeEventListener("pointermove", move);
        target.removeEventListener("pointerup", drop);
        target.removeEventListener("pointercancel", drop);
        this.let_go();
      };
      target.addEventListener("pointermove", move);
      target.addEventListener("pointerup", drop);
      target.addEventListener("pointercancel", drop);
    },
    drag(what, begin, distance) {
      let { min, max } = begin;
      if (what === "min") min = this.clamp(Math.min(begin.low + distance, this.high));
      if (what === "max") max = this.clamp(Math.max(begin.high + distance, this.low));
      if (what === "both") {
        const shift = Math.min(Math.max(distance, this.from - begin.low), this.to - begin.high);
        if (begin.min !== null) min = this.clamp(begin.low + shift);
        if (begin.max !== null) max = this.clamp(begin.high + shift);
      }
      this.hold({ min, max });
    },
    press(event, end) {
      if (!this.editable) return;
      const steps = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -10, PageUp: 10 };
      let value = null;
      if (event.key in steps) value = end.value + steps[event.key] * this.binwidth;
      if (event.key === "Home") value = this.from;
      if (event.key === "End") value = this.to;
      if (value === null) return;
      event.preventDefault();
      const band = { ...this.band };
      band[end.key] = this.clamp(end.key === "min" ? Math.min(value, this.high) : Math.max(value, this.low));
      this.hold(band);
      this.let_go();
    },
    // Tell the server at most every 60 ms while it moves, and always where it stops.
    hold(band) {
      this.held = band;
      if (this.timer === null) this.timer = setTimeout(this.tell, 60);
    },
    tell() {
      clearTimeout(this.timer);
      this.timer = null;
      if (this.held) this.$emit("band", this.held);
    },
    let_go() {
      this.tell();
      const last = this.held;
      setTimeout(() => {
        if (this.held === last) this.held = null; // the server has it by now
      }, 800);
    },
  },
};
