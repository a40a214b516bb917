// What was found, in a sentence, in tiles and in a table; and the presets of the threshold.
// Made once and then kept: what is replaced between press and release of a pointer gets no click.

function finding(counts) {
  const n = SCORES.length;
  const of = (part, all, one, more) =>
    all === 1 ? `the one ${one}` : part === all ? `all ${whole(all)} ${more}` : `${whole(part)} of ${whole(all)} ${more}`;
  const head = counts.flagged
    ? `${whole(counts.flagged)} of ${many(n, "image")} flagged.`
    : `None of ${many(n, "image")} flagged.`;
  if (!LABELLED) return head;
  const parts = [];
  if (BAD.length && !counts.tp) parts.push(`no defective part found, ${whole(counts.fn)} missed`);
  else if (BAD.length) {
    const found = `${of(counts.tp, BAD.length, "defective part", "defective parts")} found`;
    parts.push(counts.fn ? `${found}, ${whole(counts.fn)} missed` : found);
  }
  if (GOOD.length && !counts.fp) parts.push("no good part flagged by mistake");
  else if (GOOD.length) parts.push(`${of(counts.fp, GOOD.length, "good part", "good parts")} flagged by mistake`);
  const text = parts.join("; ");
  return `${head} ${text[0].toUpperCase()}${text.slice(1)}.`;
}

function makeTiles() {
  const tile = (id, label, { value = "", note = "", title = null, kind = "" } = {}) =>
    element(
      "div",
      { class: `tile ${kind}`, id: `tile-${id}`, title },
      element("dt", { text: label }),
      element("dd", {}, element("b", { id: `tile-${id}-value`, text: value }), element("span", { id: `tile-${id}-note`, text: note })),
    );
  const tiles = [];
  if (LABELLED) {
    if (BAD.length) tiles.push(tile("found", "Defects found"));
    if (BAD.length) tiles.push(tile("missed", "Defects missed"));
    if (GOOD.length) tiles.push(tile("alarm", "Good parts flagged"));
    if (BAD.length && GOOD.length) {
      const misses = BAD.length - below(BAD, zeroOverkill());
      tiles.push(tile("zero", "Missed with no false alarms", {
        value: whole(misses),
        note: `of ${whole(BAD.length)}`,
        kind: "small",
        title: "Known as misses at zero overkill: defects that pass at the highest threshold that flags no good part of these images",
      }));
    }
  } else {
    tiles.push(tile("flagged", "Images flagged"));
    if (DATA.contamination !== null) {
      tiles.push(tile("nominal", "Expected false alarms", {
        value: percent(DATA.contamination, 100 * DATA.contamination >= 1 ? 0 : 1),
        note: "of good parts, at the calibrated threshold",
      }));
    }
  }
  byId("tiles").append(...tiles);
}

function makeMatrix() {
  const cell = (outcome, id) =>
    element(
      "button",
      { type: "button", class: `cell ${outcome}`, id: `cell-${id}`, "data-filter": outcome, title: `Show: ${OUTCOMES[outcome].says}` },
      element("b", { id: `count-${id}` }),
      element("i", { id: `count-${id}-share` }),
      element("span", {}, outcomeIcon(outcome), OUTCOMES[outcome].label),
    );
  const head = (text, kind = "head") => element("span", { class: kind, "aria-hidden": "true", text });
  const cells = LABELLED
    ? [
        head(""), head("Flagged"), head("Passed"),
        head("Defective", "side-head"), cell("found", "tp"), cell("missed", "fn"),
        head("Good", "side-head"), cell("alarm", "fp"), cell("passed", "tn"),
      ]
    : [cell("flagged", "flagged"), cell("passed", "passed")];
  byId("matrix").append(element("div", { class: LABELLED ? "matrix" : "matrix two" }, ...cells));
}

function showCounts(counts) {
  const count = (id, value, total, words) => {
    setText(`count-${id}`, whole(value));
    setText(`count-${id}-share`, percent(value / total));
    const cell = byId(`cell-${id}`);
    cell.classList.toggle("none", value === 0);
    cell.setAttribute("aria-label", `${value} of ${total} ${words}`);
  };
  const tile = (id, part, all, note) => {
    if (!all) return;
    setText(`tile-${id}-value`, percent(part / all));
    setText(`tile-${id}-note`, note ?? `${whole(part)} of ${whole(all)}`);
  };
  setText("finding", finding(counts));
  if (!LABELLED) {
    count("flagged", counts.flagged, SCORES.length, "images flagged");
    count("passed", SCORES.length - counts.flagged, SCORES.length, "images passed");
    tile("flagged", counts.flagged, SCORES.length);
    return;
  }
  count("tp", counts.tp, BAD.length, "defective found");
  count("fn", counts.fn, BAD.length, "defective missed");
  count("fp", counts.fp, GOOD.length, "good flagged by mistake");
  count("tn", counts.tn, GOOD.length, "good passed");
  tile("found", counts.tp, BAD.length);
  tile("missed", counts.fn, BAD.length);
  tile("alarm", counts.fp, GOOD.length);
  byId("tile-missed")?.classList.toggle("bad", counts.fn > 0);
  const cost = 1000 * expectedCost(counts, state.costs);
  setText("cost", cost.toLocaleString("en", { maximumFractionDigits: cost < 100 ? 2 : 0 }));
}

const PRESETS = [["calibrated", "Calibrated", "calibrated", () => DATA.threshold]];
if (GOOD.length) PRESETS.push(["zero", "No false alarms", "no false alarms", zeroOverkill]);
if (GOOD.length && BAD.length) {
  // Of a thousand images it takes a while: found again only for other costs.
  let [known, cheapest] = [null, null];
  PRESETS.push(["cheapest", "Least cost", "least cost", () => {
    const costs = JSON.stringify(state.costs);
    if (costs !== known) [known, cheapest] = [costs, cheapestThreshold(state.costs)];
    return cheapest;
  }]);
}

function makePresets() {
  for (const [id, label, , threshold] of PRESETS) {
    const node = element("button", { type: "button", class: "preset", id: `preset-${id}`, text: label });
    node.addEventListener("click", () => {
      state.preset = id;
      setThreshold(threshold());
    });
    byId("presets").append(node);
  }
}

// Of presets that agree the one that was pressed last; returns what the threshold is called.
function showPresets() {
  const fitting = PRESETS.filter(([, , , wanted]) => wanted() === state.threshold);
  const here = fitting.find(([id]) => id === state.preset) ?? fitting[0];
  for (const preset of PRESETS) {
    const node = byId(`preset-${preset[0]}`);
    node.setAttribute("aria-pressed", `${preset === here}`);
    node.title = `Threshold ${preset[3]()}`;
  }
  return here ? here[2] : "set by hand";
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
      element("span", { class: "type-count", text: `${whole(found)} of ${whole(total)}` }),
      element("span", { class: "type-share", text: percent(found / total, 0) }),
    );
  });
  byId("types").replaceChildren(...rows);
}

// The colours of the maps, wherever maps are shown.
function fillLegends() {
  for (const host of document.querySelectorAll(".legend")) {
    const bar = element("i");
    bar.style.setProperty("background-image", `linear-gradient(90deg, ${DATA.scale.join(", ")})`);
    host.append(element("span", { text: "usual in good parts" }), bar, element("span", { text: "far beyond good parts" }));
    const [low, high, deepest] = DATA.limits.map((score) => short(score, 3));
    host.title = `Patch scores, higher is more unusual. Clear up to ${low}, violet at ${high}, which few good parts reach; deeper, on a logarithmic scale, up to ${deepest}`;
  }
}
