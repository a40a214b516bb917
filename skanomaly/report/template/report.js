// The page: what a reader sets, and what follows from it.

const AXIS = new Axis(500);
const FILTERS = LABELLED
  ? ["all", "found", "missed", "alarm", "passed"]
  : ["all", "flagged", "passed"];
const FEW = 5; // images, of which a histogram shows nothing

const state = {
  threshold: DATA.threshold, // exact; what is shown of it is rounded
  preset: "calibrated",
  filter: "all",
  type: "",
  query: "",
  sort: "anomalous",
  map: true,
  outline: true,
  opacity: 60,
  costs: {
    miss: DATA.costs.miss,
    falseAlarm: DATA.costs.falseAlarm,
    prevalence: LABELLED ? BAD.length / IMAGES.length : 0,
  },
};

let detail = null;
const gallery = new Gallery(byId("grid"), (index) => detail.open(index));
detail = new Detail(gallery, () => state.threshold);

const groups = LABELLED
  ? [
      { kind: "good", label: `${many(GOOD.length, "good image")}`, scores: GOOD },
      { kind: "bad", label: `${many(BAD.length, "defective image")}`, scores: BAD },
    ]
  : [{ kind: "good", label: `${many(SCORES.length, "image")}`, scores: SCORES }];
byId("histogram-block").hidden = SCORES.length < FEW;
const histogram = new Histogram(byId("histogram"), groups, DATA.trainScores, AXIS, (share) =>
  setThreshold(AXIS.at(Math.round(share * AXIS.steps))),
);
byId("histogram-legend").append(...histogram.legend());

// --- the curves, drawn once; their dots follow the threshold

const charts = {};
if (LABELLED) {
  const number = (name, label) => (name in DATA.metrics ? `${label} ${DATA.metrics[name].toFixed(4)}` : "");
  if (DATA.curves.roc) {
    byId("roc-panel").hidden = false;
    setText("roc-number", number("image_auroc", "Image AUROC"));
    charts.roc = new CurveChart(byId("roc"), DATA.curves.roc, {
      xLabel: "Good images flagged",
      yLabel: "Defects found",
      diagonal: true,
    });
  }
  if (DATA.curves.pro) {
    byId("pro-panel").hidden = false;
    setText("pro-number", number("aupro_0.3", "AUPRO"));
    charts.pro = new CurveChart(byId("pro"), DATA.curves.pro, {
      xLabel: "Normal pixels marked",
      yLabel: "Area of defects covered",
      limit: 0.3,
    });
  }
  if (DATA.curves.calibration) {
    const { x, y } = DATA.curves.calibration;
    byId("calibration-panel").hidden = false;
    setText("calibration-number", DATA.contamination === null ? "" : `Set for ${percent(DATA.contamination)}`);
    charts.calibration = new CurveChart(byId("calibration"), DATA.curves.calibration, {
      xLabel: "Good parts that should be flagged",
      yLabel: "Good test images flagged",
      diagonal: true,
      xMax: 0.5,
      yMax: Math.min(1, Math.max(0.5, ...y.filter((_, i) => x[i] <= 0.5))),
    });
  }
  byId("types-panel").hidden = recallByType(0).size === 0;
}

// --- what follows from the threshold

function setThreshold(threshold) {
  if (!Number.isFinite(threshold)) return;
  state.threshold = threshold;
  update();
}

function moveThreshold(steps) {
  setThreshold(AXIS.at(AXIS.place(state.threshold) + steps));
}

function update() {
  const { threshold } = state;
  const counts = decide(threshold);
  histogram.mark(threshold);
  byId("slider").value = AXIS.place(threshold);
  byId("slider").setAttribute("aria-valuetext", `${short(threshold, 6)}: ${counts.flagged} flagged`);
  const field = byId("threshold");
  if (document.activeElement !== field) field.value = short(threshold, 6);
  field.title = `Exactly ${threshold}`;
  field.dataset.exact = `${threshold}`;
  showProblem("threshold", false);
  showCounts(counts);
  const called = showPresets();
  setText("rule", `Images scoring below ${short(threshold)} are flagged.`);
  setText("folded", `${short(threshold)}, ${called}`);
  if (LABELLED) showTypes();
  charts.roc?.mark(counts.alarmRate, counts.recall);
  if (charts.calibration && DATA.trainScores.length) {
    charts.calibration.mark(nominalShare(DATA.trainScores, threshold), counts.alarmRate);
  }
  for (const card of gallery.cards) card.decide(outcomeOf(card.image, threshold));
  detail.decide();
  say(finding(counts));
  show();
  const which = state.filter === "all" ? "all images" : OUTCOMES[state.filter].plural;
  const order = byId("sort").selectedOptions[0].dataset.says;
  setText("printed", `Shown: ${which}, ${order}. Threshold ${short(threshold)} (${called}).`);
}

let saying = null;
function say(text) {
  // Once it rests: a reader of screens would be told of each step of the slider.
  clearTimeout(saying);
  saying = setTimeout(() => setText("live", text), 400);
}

function showProblem(id, wrong) {
  byId(id).setAttribute("aria-invalid", `${wrong}`);
  byId(`${id}-problem`).hidden = !wrong;
}

// --- which images are shown

function show() {
  const counts = { all: IMAGES.length };
  for (const card of gallery.cards) counts[card.outcome] = (counts[card.outcome] ?? 0) + 1;
  for (const name of FILTERS) setText(`chip-${name}`, whole(counts[name] ?? 0));
  for (const button of document.querySelectorAll("[data-filter]")) {
    button.setAttribute("aria-pressed", `${state.filter === button.dataset.filter}`);
  }
  gallery.sort(state.sort, state.threshold);
  const words = state.query.toLocaleLowerCase().split(/\s+/).filter(Boolean);
  const n = gallery.filter((image, outcome) => {
    if (state.filter !== "all" && outcome !== state.filter) return false;
    if (state.type && (image.y === 1 || image.type !== state.type)) return false;
    const text = `${image.name} ${image.type ?? ""}`.toLocaleLowerCase();
    return words.every((word) => text.includes(word));
  });
  setText("shown", n === IMAGES.length ? many(n, "image") : `${whole(n)} of ${many(IMAGES.length, "image")}`);
  byId("empty").hidden = n > 0;
  const none = state.filter !== "all" && !(counts[state.filter] ?? 0);
  setText("empty-says", none ? `${OUTCOMES[state.filter].none} at this threshold.` : "No image fits these filters.");
}

function makeChips() {
  for (const name of FILTERS) {
    const label = name === "all" ? "All" : OUTCOMES[name].label;
    const icon = name === "all" ? null : outcomeIcon(name);
    const node = element("button", { type: "button", class: `chip ${name}`, "data-filter": name }, icon, label);
    node.append(element("b", { id: `chip-${name}` }));
    byId("chips").append(node);
  }
}

function setFilter(name) {
  state.filter = name;
  selectTab("tab-images");
  update();
}

// --- maps and outlines

function setView(changes) {
  Object.assign(state, changes);
  const root = document.documentElement;
  root.style.setProperty("--map-opacity", state.map ? state.opacity / 100 : 0);
  root.classList.toggle("no-outline", !state.outline);
  for (const prefix of ["", "detail-"]) {
    byId(`${prefix}map`).checked = state.map;
    byId(`${prefix}opacity`).value = state.opacity;
    if (OUTLINED) byId(`${prefix}outline`).checked = state.outline;
  }
}
