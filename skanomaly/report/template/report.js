// The page: what a reader sets, and what follows from it.

const byId = (id) => document.getElementById(id);
const AXIS = new Axis(500);
const FILTERS = LABELLED
  ? ["all", "found", "missed", "alarm", "passed"]
  : ["all", "flagged", "passed"];

const state = {
  threshold: DATA.threshold,
  filter: "all",
  type: "",
  query: "",
  sort: "anomalous",
  map: true,
  outline: true,
  opacity: 70,
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
      { kind: "good", label: `good (${GOOD.length})`, scores: GOOD },
      { kind: "bad", label: `defective (${BAD.length})`, scores: BAD },
    ]
  : [{ kind: "good", label: `images (${SCORES.length})`, scores: SCORES }];
const histogram = new Histogram(byId("histogram"), groups, DATA.trainScores, AXIS, (share) =>
  setThreshold(AXIS.at(Math.round(share * AXIS.steps))),
);

// --- the curves, drawn once; their dots follow the threshold

const charts = {};
if (LABELLED) {
  const number = (name) => (name in DATA.metrics ? `${name.replaceAll("_", " ")} ${DATA.metrics[name].toFixed(4)}` : "");
  if (DATA.curves.roc) {
    byId("roc-panel").hidden = false;
    byId("roc-number").textContent = number("image_auroc");
    charts.roc = new CurveChart(byId("roc"), DATA.curves.roc, {
      xLabel: "good images flagged",
      yLabel: "defects found",
      diagonal: true,
    });
  }
  if (DATA.curves.pro) {
    byId("pro-panel").hidden = false;
    byId("pro-number").textContent = number("aupro_0.3");
    charts.pro = new CurveChart(byId("pro"), DATA.curves.pro, {
      xLabel: "normal pixels flagged",
      yLabel: "overlap of regions",
      limit: 0.3,
    });
  }
  if (DATA.curves.calibration) {
    byId("calibration-panel").hidden = false;
    byId("calibration-number").textContent =
      DATA.contamination === null ? "" : `set for ${percent(DATA.contamination)}`;
    charts.calibration = new CurveChart(byId("calibration"), DATA.curves.calibration, {
      xLabel: "nominal share flagged",
      yLabel: "good test images flagged",
      diagonal: true,
      xMax: 0.5,
      yMax: Math.min(1, Math.max(0.5, ...DATA.curves.calibration.y.filter((_, i) => DATA.curves.calibration.x[i] <= 0.5))),
    });
  }
  byId("types-panel").hidden = recallByType(0).size === 0;
}

// --- what follows from the threshold

// Made once and then kept: what is replaced between press and release of a pointer gets no click.

function setText(id, text) {
  byId(id).textContent = text;
}

function makeTiles() {
  const tile = (id, label, value = "") =>
    element(
      "div",
      { class: "tile" },
      element("p", { class: "tile-value", id: `tile-${id}`, text: value }),
      element("p", { class: "tile-label", text: label }),
    );
  const tiles = [];
  if (LABELLED) {
    if (BAD.length) tiles.push(tile("found", "defective found"));
    if (GOOD.length) tiles.push(tile("alarm", "good flagged"));
    if (BAD.length && GOOD.length) {
      const misses = BAD.length - below(BAD, zeroOverkill());
      tiles.push(tile("zero", `${misses === 1 ? "miss" : "misses"} at zero overkill`, `${misses}`));
    }
    for (const [name, label] of [["image_auroc", "image AUROC"], ["aupro_0.3", "AUPRO, to 30% FPR"]]) {
      if (name in DATA.metrics) tiles.push(tile(name, label, DATA.metrics[name].toFixed(3)));
    }
  } else {
    tiles.push(tile("flagged", "images flagged"), tile("share", "share flagged"));
    if (DATA.contamination !== null) {
      tiles.push(tile("nominal", "of good parts expected", percent(DATA.contamination)));
    }
    tiles.push(tile("lowest", "lowest score", short(SCORES[0], 3)));
  }
  byId("tiles").append(...tiles);
}

function makeMatrix() {
  const cell = (outcome, id) =>
    element(
      "button",
      { type: "button", class: `cell ${outcome}`, "data-filter": outcome, title: `Show: ${OUTCOMES[outcome].says}` },
      element("b", { id: `count-${id}` }),
      element("span", { text: OUTCOMES[outcome].label }),
      element("i", { id: `count-${id}-share` }),
    );
  const head = (text, kind = "head") => element("span", { class: kind, text });
  const cells = LABELLED
    ? [
        head(""), head("flagged"), head("passed"),
        head("defective", "side-head"), cell("found", "tp"), cell("missed", "fn"),
        head("good", "side-head"), cell("alarm", "fp"), cell("passed", "tn"),
      ]
    : [cell("flagged", "flagged"), cell("passed", "passed")];
  byId("matrix").append(element("div", { class: LABELLED ? "matrix" : "matrix two" }, ...cells));
}

function showCounts(counts) {
  const count = (id, value, total) => {
    setText(`count-${id}`, `${value}`);
    setText(`count-${id}-share`, percent(value / total));
  };
  if (!LABELLED) {
    count("flagged", counts.flagged, SCORES.length);
    count("passed", SCORES.length - counts.flagged, SCORES.length);
    setText("tile-flagged", `${counts.flagged} of ${SCORES.length}`);
    setText("tile-share", percent(counts.flagged / SCORES.length));
    return;
  }
  count("tp", counts.tp, BAD.length);
  count("fn", counts.fn, BAD.length);
  count("fp", counts.fp, GOOD.length);
  count("tn", counts.tn, GOOD.length);
  if (BAD.length) setText("tile-found", `${counts.tp} of ${BAD.length}`);
  if (GOOD.length) setText("tile-alarm", `${counts.fp} of ${GOOD.length}`);
  const cost = 1000 * expectedCost(counts, state.costs);
  setText("cost", cost.toLocaleString("en", { maximumFractionDigits: cost < 100 ? 2 : 0 }));
}

const PRESETS = [["calibrated", "Calibrated", () => DATA.threshold]];
if (GOOD.length) PRESETS.push(["zero", "Zero overkill", zeroOverkill]);
if (GOOD.length && BAD.length) {
  PRESETS.push(["cheapest", "Least cost", () => cheapestThreshold(state.costs)]);
}

function makePresets() {
  for (const [id, label, threshold] of PRESETS) {
    const node = element("button", { type: "button", class: "preset", id: `preset-${id}`, text: label });
    node.addEventListener("click", () => setThreshold(threshold()));
    byId("presets").append(node);
  }
}

function showPresets(counts) {
  for (const [id, , wanted] of PRESETS) {
    const threshold = wanted();
    const same = decide(threshold).flagged === counts.flagged;
    const here = id === "calibrated" ? threshold === state.threshold : same;
    byId(`preset-${id}`).setAttribute("aria-pressed", `${here}`);
    byId(`preset-${id}`).title = `${threshold}`;
  }
}

function showTypes() {
  const rows = [...recallByType(state.threshold)].map(([kind, { total, found }]) => {
    const bar = element("span", { class: "meter" }, element("i"));
    bar.firstChild.style.setProperty("width", `${(100 * found) / total}%`);
    return element(
      "div",
      { class: "type-row", "data-type": kind },
      element("span", { class: "type-name", text: kind, title: kind }),
      bar,
      element("span", { class: "type-count", text: `${found} of ${total}` }),
      element("span", { class: "type-share", text: percent(found / total, 0) }),
    );
  });
  byId("types").replaceChildren(...rows);
}

function setThreshold(threshold) {
  if (!Number.isFinite(threshold)) return;
  state.threshold = threshold;
  update();
}

function moveThreshold(steps) {
  setThreshold(AXIS.at(AXIS.place(state.threshold) + steps));
}

function update() {
  const counts = decide(state.threshold);
  histogram.mark(state.threshold);
  byId("slider").value = AXIS.place(state.threshold);
  byId("slider").setAttribute("aria-valuetext", `${state.threshold}: ${counts.flagged} flagged`);
  if (document.activeElement !== byId("threshold")) byId("threshold").value = `${state.threshold}`;
  byId("threshold").removeAttribute("aria-invalid");
  byId("decided").textContent = `${counts.flagged} of ${SCORES.length} flagged`;
  showCounts(counts);
  showPresets(counts);
  if (LABELLED) showTypes();
  charts.roc?.mark(counts.alarmRate, counts.recall);
  if (charts.calibration && DATA.trainScores.length) {
    const n = DATA.trainScores.length;
    charts.calibration.mark(below(DATA.trainScores, state.threshold) / n, counts.alarmRate);
  }
  for (const card of gallery.cards) card.decide(outcomeOf(card.image, state.threshold));
  detail.decide();
  say(LABELLED
    ? `${counts.tp} found, ${counts.fn} missed, ${counts.fp} false alarms, ${counts.tn} passed`
    : `${counts.flagged} flagged`);
  show();
}

let saying = null;
function say(text) {
  // Once it rests: a reader of screens would be told of each step of the slider.
  clearTimeout(saying);
  saying = setTimeout(() => { byId("live").textContent = text; }, 400);
}

// --- which images are shown

function show() {
  const counts = { all: IMAGES.length };
  for (const card of gallery.cards) counts[card.outcome] = (counts[card.outcome] ?? 0) + 1;
  for (const name of FILTERS) {
    setText(`chip-${name}`, `${counts[name] ?? 0}`);
    byId(`chip-${name}`).parentNode.setAttribute("aria-pressed", `${state.filter === name}`);
  }
  gallery.sort(state.sort, state.threshold);
  const words = state.query.toLocaleLowerCase().split(/\s+/).filter(Boolean);
  const n = gallery.filter((image, outcome) => {
    if (state.filter !== "all" && outcome !== state.filter) return false;
    if (state.type && (image.type ?? "") !== state.type) return false;
    const text = `${image.name} ${image.type ?? ""}`.toLocaleLowerCase();
    return words.every((word) => text.includes(word));
  });
  byId("shown").textContent = n === IMAGES.length ? `${n} images` : `${n} of ${IMAGES.length} images`;
  byId("empty").hidden = n > 0;
}

function makeChips() {
  for (const name of FILTERS) {
    const label = name === "all" ? "All" : OUTCOMES[name].label;
    const node = element("button", { type: "button", class: `chip ${name}`, "data-filter": name }, label);
    node.append(element("b", { id: `chip-${name}` }));
    byId("chips").append(node);
  }
}

function setFilter(name) {
  state.filter = name;
  selectTab("tab-images");
  show();
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-filter]");
  if (button) setFilter(button.dataset.filter);
});
byId("clear").addEventListener("click", () => {
  Object.assign(state, { filter: "all", type: "", query: "" });
  byId("search").value = "";
  if (byId("type")) byId("type").value = "";
  show();
});
byId("search").addEventListener("input", (event) => {
  state.query = event.target.value;
  show();
});
byId("sort").addEventListener("change", (event) => {
  state.sort = event.target.value;
  show();
});
if (LABELLED) {
  const kinds = [...new Set(IMAGES.map((image) => image.type).filter((kind) => kind !== null))].sort();
  byId("type").append(
    element("option", { value: "", text: "All types" }),
    ...kinds.map((kind) => element("option", { value: kind, text: kind })),
  );
  byId("type").addEventListener("change", (event) => {
    state.type = event.target.value;
    show();
  });
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
    if (LABELLED) byId(`${prefix}outline`).checked = state.outline;
  }
}

for (const prefix of ["", "detail-"]) {
  byId(`${prefix}map`).addEventListener("change", (event) => setView({ map: event.target.checked }));
  byId(`${prefix}opacity`).addEventListener("input", (event) =>
    setView({ opacity: Number(event.target.value), map: true }),
  );
  if (LABELLED) {
    byId(`${prefix}outline`).addEventListener("change", (event) => setView({ outline: event.target.checked }));
  }
}
const bar = element("i");
bar.style.setProperty("background-image", `linear-gradient(90deg, ${DATA.scale.join(", ")})`);
byId("legend").append(
  element("span", { text: short(DATA.limits[0], 3) }),
  bar,
  element("span", { text: short(DATA.limits[1], 3) }),
);
byId("legend").title = "Patch scores, higher is more anomalous: clear up to the highest that is usual in good parts, red where few good parts reach";

// --- threshold, costs

const slider = byId("slider");
slider.min = 0;
slider.max = AXIS.steps;
slider.addEventListener("input", () => setThreshold(AXIS.at(Number(slider.value))));
byId("threshold").addEventListener("input", (event) => {
  const text = event.target.value.trim().replace("−", "-");
  const value = text === "" ? NaN : Number(text);
  if (Number.isFinite(value)) setThreshold(value);
  else event.target.setAttribute("aria-invalid", "true");
});
byId("threshold").addEventListener("blur", update);
if (LABELLED) {
  byId("cost-miss").value = state.costs.miss;
  byId("cost-alarm").value = state.costs.falseAlarm;
  byId("prevalence").value = Number((100 * state.costs.prevalence).toPrecision(6));
  const numbers = [["cost-miss", "miss", 1, Infinity], ["cost-alarm", "falseAlarm", 1, Infinity], ["prevalence", "prevalence", 100, 1]];
  for (const [id, key, unit, most] of numbers) {
    byId(id).addEventListener("input", (event) => {
      const value = event.target.value === "" ? NaN : Number(event.target.value) / unit;
      const fits = Number.isFinite(value) && value >= 0 && value <= most;
      event.target.setAttribute("aria-invalid", `${!fits}`);
      if (!fits) return;
      state.costs[key] = value;
      update();
    });
  }
}

// --- tabs, dialogs, keyboard, files

const tabs = [...document.querySelectorAll("[role=tab]")];
function selectTab(id) {
  for (const tab of tabs) {
    const selected = tab.id === id;
    tab.setAttribute("aria-selected", `${selected}`);
    tab.tabIndex = selected ? 0 : -1;
    byId(tab.getAttribute("aria-controls")).hidden = !selected;
  }
}
for (const [i, tab] of tabs.entries()) {
  tab.addEventListener("click", () => selectTab(tab.id));
  tab.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step === undefined) return;
    const other = tabs[(i + step + tabs.length) % tabs.length];
    selectTab(other.id);
    other.focus();
    event.stopPropagation();
  });
}
for (const button of document.querySelectorAll("[data-close]")) {
  button.addEventListener("click", () => button.closest("dialog").close());
}
for (const dialog of document.querySelectorAll("dialog")) {
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });
}
byId("help-button").addEventListener("click", () => byId("help").showModal());

function switchTheme() {
  const root = document.documentElement;
  const now = root.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  root.dataset.theme = now === "dark" ? "light" : "dark";
}
byId("theme").addEventListener("click", switchTheme);

byId("csv").addEventListener("click", () => {
  const url = URL.createObjectURL(new Blob([verdictsCsv(state.threshold)], { type: "text/csv" }));
  element("a", { href: url, download: "verdicts.csv" }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
});

const KEYS = {
  m: () => setView({ map: !state.map }),
  o: () => setView({ outline: !state.outline }),
  "[": () => setView({ map: true, opacity: Math.max(0, state.opacity - 10) }),
  "]": () => setView({ map: true, opacity: Math.min(100, state.opacity + 10) }),
  "-": () => moveThreshold(-1),
  "+": () => moveThreshold(1),
  "=": () => moveThreshold(1),
  0: () => setThreshold(DATA.threshold),
  "/": () => { selectTab("tab-images"); byId("search").focus(); },
  t: switchTheme,
  "?": () => byId("help").showModal(),
};
FILTERS.forEach((name, i) => { KEYS[i + 1] = () => setFilter(name); });
const IN_DIALOG = new Set(["m", "o", "[", "]", "t"]);

document.addEventListener("keydown", (event) => {
  const typing = event.target.matches("input:not([type=range], [type=checkbox]), select, textarea");
  if (event.ctrlKey || event.altKey || event.metaKey || typing) return;
  const action = KEYS[event.key];
  const modal = document.querySelector("dialog[open]");
  if (!action || (modal && !IN_DIALOG.has(event.key))) return;
  action();
  event.preventDefault();
});
addEventListener("beforeprint", () => gallery.loadVisible());

makeTiles();
makeMatrix();
makePresets();
makeChips();
setView({});
update();
