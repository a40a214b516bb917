// The histogram of the scores, and the curves.

// Scores by class: good parts above the axis, defective ones below, unlabelled ones above.
class Histogram {
  constructor(host, groups, training, axis, onMove) {
    Object.assign(this, { host, groups, training, axis });
    this.threshold = null;
    const move = (event) => {
      const box = this.svg.getBoundingClientRect();
      onMove((event.clientX - box.left - 8) / Math.max(1, this.width - 2 * 8));
    };
    host.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      host.setPointerCapture(event.pointerId);
      move(event);
      event.preventDefault();
    });
    host.addEventListener("pointermove", (event) => {
      if (host.hasPointerCapture(event.pointerId)) move(event);
    });
    new ResizeObserver(() => this.draw()).observe(host);
  }

  place(share) {
    return 8 + (this.width - 2 * 8) * share; // the thumb of the slider has a radius of 8 pixels
  }

  position(score) {
    return this.place(Math.min(1, Math.max(0, this.axis.share(score))));
  }

  draw() {
    this.width = this.host.clientWidth;
    if (this.width < 40) return;
    const mirrored = this.groups.length > 1;
    const height = mirrored ? 150 : 118;
    const base = mirrored ? 66 : 88;
    const room = mirrored ? 54 : 74;
    const svg = drawn("svg", { viewBox: `0 0 ${this.width} ${height}`, role: "img" });
    this.bottom = mirrored ? base + room + 3 : base + 1;
    const bins = Math.max(20, Math.min(72, Math.round(this.width / 6)));
    const count = (scores) => {
      const out = new Array(bins).fill(0);
      for (const score of scores) {
        out[Math.min(bins - 1, Math.max(0, Math.floor(this.axis.share(score) * bins)))] += 1;
      }
      return out;
    };
    const counted = this.groups.map((group) => count(group.scores));
    this.zone = drawn("rect", { class: "zone", x: 0, y: 0, height });
    svg.append(this.zone);
    const trained = count(this.training);
    // Each side by its own highest bar: the shapes are compared, not how many there are of each.
    counted.forEach((bars, side) => {
      const many = this.training.length / Math.max(1, this.groups[side].scores.length);
      const tops = side === 0 && this.training.length ? trained.map((n) => n / many) : [];
      const most = Math.max(1, ...bars, ...tops);
      bars.forEach((bar, i) => {
        if (!bar) return;
        const x = this.place(i / bins);
        const size = Math.max(2, (bar / most) * room);
        svg.append(
          drawn("rect", {
            class: `bar ${this.groups[side].kind}`,
            x: x + 0.5,
            width: Math.max(1, (this.width - 16) / bins - 1),
            y: side === 0 ? base - size : base + 1,
            height: size,
            rx: 1,
          }),
        );
      });
      if (tops.length) {
        let path = `M${this.place(0)} ${base}`;
        tops.forEach((top, i) => {
          path += `V${base - (top / most) * room}H${this.place((i + 1) / bins)}`;
        });
        svg.append(drawn("path", { class: "trained", d: `${path}V${base}` }));
      }
    });
    svg.append(drawn("line", { class: "base", x1: 0, x2: this.width, y1: base, y2: base }));
    for (const value of this.axis.ticks(Math.max(3, Math.floor(this.width / 80)))) {
      const x = this.position(value);
      svg.append(drawn("line", { class: "base", x1: x, x2: x, y1: this.bottom, y2: this.bottom + 4 }));
      svg.append(drawn("text", { class: "tick", x, y: this.bottom + 16, "text-anchor": "middle" }, `${value}`));
    }
    this.line = drawn("line", { class: "cut", y1: 0, y2: this.bottom });
    this.grip = drawn("rect", { class: "grip", width: 8, height: 18, rx: 4, y: 4 });
    svg.append(this.line, this.grip);
    this.host.replaceChildren(svg);
    this.svg = svg;
    if (this.threshold !== null) this.mark(this.threshold);
  }

  legend() {
    const entries = this.groups.map((group) =>
      element("span", {}, element("i", { class: group.kind }), group.label),
    );
    if (this.training.length) {
      entries.push(element("span", {}, element("i", { class: "trained" }), "Good training images"));
    }
    return entries;
  }

  mark(threshold) {
    this.threshold = threshold;
    if (!this.line) return;
    const x = this.position(threshold);
    const counts = this.groups.map((group) => `${below(group.scores, threshold)} of ${group.label}`);
    this.svg.setAttribute("aria-label", `Histogram of the scores. Flagged: ${counts.join(", ")}.`);
    this.zone.setAttribute("width", Math.max(0, x));
    this.zone.setAttribute("height", this.bottom);
    this.line.setAttribute("x1", x);
    this.line.setAttribute("x2", x);
    this.grip.setAttribute("x", x - 4);
  }
}

// A curve in the unit square, or a part of it.
class CurveChart {
  constructor(host, curve, { xLabel, yLabel, xMax = 1, yMax = 1, diagonal = false, limit = null }) {
    const [width, height, left, top, right, bottom] = [360, 280, 58, 10, 16, 42];
    this.x = (value) => left + ((width - left - right) * Math.min(value, xMax)) / xMax;
    this.y = (value) => height - bottom - ((height - top - bottom) * Math.min(value, yMax)) / yMax;
    const svg = drawn("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${yLabel} against ${xLabel}` });
    for (const value of ticks(0, xMax, 4)) {
      svg.append(drawn("line", { class: "rule", x1: this.x(value), x2: this.x(value), y1: top, y2: this.y(0) }));
      svg.append(drawn("text", { class: "tick", x: this.x(value), y: height - bottom + 16, "text-anchor": "middle" }, percent(value, 0)));
    }
    for (const value of ticks(0, yMax, 4)) {
      svg.append(drawn("line", { class: "rule", x1: left, x2: width - right, y1: this.y(value), y2: this.y(value) }));
      svg.append(drawn("text", { class: "tick", x: left - 8, y: this.y(value) + 4, "text-anchor": "end" }, percent(value, 0)));
    }
    svg.append(drawn("text", { class: "label", x: (left + width - right) / 2, y: height - 4, "text-anchor": "middle" }, xLabel));
    const middle = (top + height - bottom) / 2;
    svg.append(drawn("text", { class: "label", x: 12, y: middle, "text-anchor": "middle", transform: `rotate(-90 12 ${middle})` }, yLabel));
    if (limit !== null) {
      svg.append(drawn("rect", { class: "within", x: left, y: top, width: this.x(limit) - left, height: this.y(0) - top }));
    }
    if (diagonal) {
      const end = Math.min(xMax, yMax);
      svg.append(drawn("line", { class: "diagonal", x1: this.x(0), y1: this.y(0), x2: this.x(end), y2: this.y(end) }));
    }
    const points = [];
    for (let i = 0; i < curve.x.length; i += 1) {
      if (i && curve.x[i - 1] > xMax) break;
      points.push(`${this.x(curve.x[i]).toFixed(1)} ${this.y(curve.y[i]).toFixed(1)}`);
    }
    svg.append(drawn("path", { class: "curve", d: `M${points.join("L")}` }));
    this.dot = drawn("circle", { class: "dot", r: 5, visibility: "hidden" });
    svg.append(this.dot);
    host.replaceChildren(svg);
  }

  mark(x, y) {
    this.dot.setAttribute("visibility", "visible");
    this.dot.setAttribute("cx", this.x(x));
    this.dot.setAttribute("cy", this.y(y));
  }
}
