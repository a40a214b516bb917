// What a threshold decides: pure functions of scores and labels, compared as Python compares them.

const DATA = JSON.parse(byId("data").textContent);
const IMAGES = DATA.images.map((row, index) => ({ ...row, index }));
const LABELLED = IMAGES[0].y !== null;
const OUTLINED = IMAGES.some((image) => image.outline);
const EXPLAINED = IMAGES.some((image) => image.why);
const GOOD = IMAGES.filter((image) => image.y === 1).map((image) => image.score);
const BAD = IMAGES.filter((image) => image.y === -1).map((image) => image.score);
const SCORES = IMAGES.map((image) => image.score).sort((a, b) => a - b);

const OUTCOMES = {
  found: { label: "Found", says: "defective, flagged", plural: "defects found", none: "No defect is found" },
  missed: { label: "Missed", says: "defective, passed", plural: "missed defects", none: "No defect is missed" },
  alarm: { label: "False alarm", says: "good, flagged", plural: "false alarms", none: "No good part is flagged" },
  passed: {
    label: "Passed",
    says: LABELLED ? "good, passed" : "passed",
    plural: LABELLED ? "good parts that pass" : "images that pass",
    none: LABELLED ? "No good part passes" : "No image passes",
  },
  flagged: { label: "Flagged", says: "flagged", plural: "flagged images", none: "No image is flagged" },
};

function outcomeOf(image, threshold) {
  const flagged = image.score < threshold;
  if (image.y === null) return flagged ? "flagged" : "passed";
  if (image.y === -1) return flagged ? "found" : "missed";
  return flagged ? "alarm" : "passed";
}

function below(scores, threshold) {
  let n = 0;
  for (const score of scores) if (score < threshold) n += 1;
  return n;
}

// The share of good parts that a threshold should flag: the i-th lowest of n held-out scores stands
// for i / (n + 1), as where the detector sets its threshold. `sorted` is ascending.
function nominalShare(sorted, threshold) {
  const n = sorted.length;
  const i = below(sorted, threshold);
  if (i === 0) return threshold === sorted[0] ? 1 / (n + 1) : 0;
  if (i === n) return n / (n + 1);
  const part = (threshold - sorted[i - 1]) / (sorted[i] - sorted[i - 1]);
  return (i + part) / (n + 1);
}

function decide(threshold) {
  const tp = below(BAD, threshold);
  const fp = below(GOOD, threshold);
  return {
    flagged: below(SCORES, threshold),
    tp,
    fp,
    fn: BAD.length - tp,
    tn: GOOD.length - fp,
    recall: tp / BAD.length,
    alarmRate: fp / GOOD.length,
  };
}

// Of one part, on average, where the share `prevalence` of all parts is defective.
function expectedCost(counts, costs) {
  const missRate = BAD.length ? counts.fn / BAD.length : 0;
  const alarmRate = GOOD.length ? counts.fp / GOOD.length : 0;
  return (
    costs.prevalence * missRate * costs.miss +
    (1 - costs.prevalence) * alarmRate * costs.falseAlarm
  );
}

// Thresholds that decide differently: between neighbouring scores, below all and above all.
function candidates() {
  const levels = [...new Set(SCORES)];
  const out = [levels[0]];
  for (let i = 1; i < levels.length; i += 1) {
    const middle = levels[i - 1] + (levels[i] - levels[i - 1]) / 2;
    out.push(middle > levels[i - 1] ? middle : levels[i]);
  }
  const last = levels[levels.length - 1];
  out.push(last + Math.max(Math.abs(last) * 1e-9, 1e-9));
  return out;
}

// Of equally cheap thresholds the highest, which misses least.
function cheapestThreshold(costs) {
  let best = null;
  let least = Infinity;
  for (const threshold of candidates()) {
    const cost = expectedCost(decide(threshold), costs);
    if (cost <= least) [best, least] = [threshold, cost];
  }
  return best;
}

// No good image lies below its own lowest score: the highest threshold without a false alarm.
function zeroOverkill() {
  return GOOD.reduce((a, b) => Math.min(a, b), Infinity);
}

function recallByType(threshold) {
  const kinds = new Map();
  for (const image of IMAGES) {
    if (image.y !== -1) continue;
    const kind = kinds.get(image.type) ?? { total: 0, found: 0 };
    kind.total += 1;
    kind.found += image.score < threshold ? 1 : 0;
    kinds.set(image.type, kind);
  }
  return new Map([...kinds].sort(([a], [b]) => (a < b ? -1 : 1)));
}

// Scores on the axis: even where most scores of good parts lie, and closer and closer together the
// further away, since defects may score a hundred times lower. Of scores that lie together even.
class Axis {
  constructor(steps) {
    const usual = DATA.trainScores.length ? DATA.trainScores : [...(GOOD.length ? GOOD : SCORES)];
    usual.sort((a, b) => a - b);
    const at = (share) => usual[Math.round(share * (usual.length - 1))];
    this.middle = at(0.5);
    const all = [SCORES[0], SCORES[SCORES.length - 1], DATA.threshold];
    const ends = [Math.min(...all), Math.max(...all)];
    const span = ends[1] - ends[0] || Math.abs(ends[0]) || 1;
    this.unit = Math.max(1.5 * (at(0.95) - at(0.05)), span / 1e4);
    this.steps = steps;
    const [first, last] = ends.map((score) => this.bend(score));
    const margin = Math.max((last - first) * 0.03, span / this.unit / 1e3);
    this.first = first - margin;
    this.last = last + margin;
    this.low = this.unbend(this.first);
    this.high = this.unbend(this.last);
  }

  bend(score) {
    return Math.asinh((score - this.middle) / this.unit);
  }

  unbend(value) {
    return this.middle + this.unit * Math.sinh(value);
  }

  // Where a score lies, from 0 to 1, and back.
  share(score) {
    return (this.bend(score) - this.first) / (this.last - this.first);
  }

  score(share) {
    return this.unbend(this.first + share * (this.last - this.first));
  }

  // The threshold of a place of the slider: a short number, that of each place another.
  at(place) {
    const share = Math.min(1, Math.max(0, place / this.steps));
    const value = this.score(share);
    const gap = Math.abs(this.score(share + 1 / this.steps) - value);
    const digits = Math.min(100, Math.max(0, Math.ceil(-Math.log10(gap / 2))));
    return Number(value.toFixed(digits));
  }

  place(score) {
    return Math.min(this.steps, Math.max(0, Math.round(this.share(score) * this.steps)));
  }

  // Round numbers that lie apart on the axis.
  ticks(most) {
    const out = [];
    for (let i = 0; i < most; i += 1) {
      const [low, high] = [0.2, 0.8].map((at) => this.score((i + at) / most));
      out.push(roundest(low, high));
    }
    return out;
  }
}

function csvCell(value) {
  if (value === null || value === undefined) return "";
  if (typeof value === "number") return String(value);
  // What a spreadsheet would take for a formula stays text.
  const text = /^[=+\-@\t\r]/.test(value) ? `'${value}` : value;
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

// Of all images, whatever is shown.
function verdictsCsv(threshold) {
  const header = ["image", "known", "defect_type", "score", "threshold", "decision", "p_value"];
  const rows = IMAGES.map((image) => [
    image.name,
    image.y === null ? null : image.y === 1 ? "good" : "defective",
    image.y === 1 ? null : image.type,
    image.score,
    threshold,
    image.score < threshold ? "flagged" : "passed",
    image.p,
  ]);
  return [header, ...rows].map((row) => row.map(csvCell).join(",")).join("\r\n") + "\r\n";
}
