// Cards of images, and one image at large. Pictures are set when they come near the window.

class Stage {
  // A photograph, its heat map and its outline, one over the other.
  constructor(image) {
    this.photo = element("img", { class: "photo", alt: "", decoding: "async" });
    this.map = element("img", { class: "map", alt: "", decoding: "async" });
    this.node = element("span", { class: "stage" }, this.photo, this.map);
    this.node.style.setProperty("--ratio", image.width / image.height);
    this.node.classList.toggle("tall", image.height > image.width);
    if (image.outline) {
      const svg = drawn("svg", { class: "outline", viewBox: "0 0 1000 1000", preserveAspectRatio: "none" });
      svg.append(drawn("path", { class: "halo", d: image.outline }));
      svg.append(drawn("path", { d: image.outline }));
      this.node.append(svg);
    }
    this.image = image;
  }

  load(large = false) {
    this.photo.src = (large && this.image.large) || this.image.photo;
    this.map.src = this.image.map;
  }
}

function badge(outcome) {
  return element("span", { class: `badge ${outcome}`, text: OUTCOMES[outcome].label });
}

class Card {
  constructor(image, rank, open) {
    this.image = image;
    this.stage = new Stage(image);
    this.badge = badge("passed");
    // A folder that is named after the type of defect has said it.
    const known = image.y === null || image.name.startsWith(`${image.type}/`) ? null : image.type;
    this.node = element(
      "button",
      { type: "button", class: "card", "data-index": image.index },
      element("span", { class: "frame" }, this.stage.node, element("span", { class: "rank", text: `${rank}` })),
      element(
        "span",
        { class: "card-text" },
        element("span", { class: "card-name", text: image.name, title: image.name }),
        element("span", { class: "card-row" }, this.badge, element("span", { class: "score", text: short(image.score) })),
        known === null ? null : element("span", { class: "known", text: known }),
      ),
    );
    this.node.addEventListener("click", () => open(image.index));
  }

  decide(outcome) {
    if (this.outcome === outcome) return;
    this.outcome = outcome;
    this.node.dataset.outcome = outcome;
    this.badge.className = `badge ${outcome}`;
    this.badge.textContent = OUTCOMES[outcome].label;
    this.node.setAttribute(
      "aria-label",
      `${this.image.name}: ${OUTCOMES[outcome].label}, score ${short(this.image.score)}`,
    );
  }
}

const ORDERS = {
  anomalous: (a, b) => a.score - b.score || a.index - b.index,
  normal: (a, b) => b.score - a.score || a.index - b.index,
  close: (a, b, t) => Math.abs(a.score - t) - Math.abs(b.score - t) || a.index - b.index,
  name: (a, b) => a.name.localeCompare(b.name, undefined, { numeric: true }) || a.index - b.index,
};

class Gallery {
  constructor(host, open) {
    this.host = host;
    const ranked = [...IMAGES].sort(ORDERS.anomalous);
    this.cards = new Array(IMAGES.length);
    ranked.forEach((image, i) => {
      this.cards[image.index] = new Card(image, i + 1, open);
    });
    this.loader = new IntersectionObserver(
      (entries) => {
        for (const entry of entries) {
          if (!entry.isIntersecting) continue;
          this.cards[Number(entry.target.dataset.index)].stage.load();
          this.loader.unobserve(entry.target);
        }
      },
      { rootMargin: "800px 0px" },
    );
    for (const card of this.cards) this.loader.observe(card.node);
    this.order = null;
    this.visible = [];
    host.addEventListener("keydown", (event) => this.walk(event));
  }

  sort(by, threshold) {
    const key = by === "close" ? `${by} ${threshold}` : by;
    if (key === this.order) return;
    this.order = key;
    const images = [...IMAGES].sort((a, b) => ORDERS[by](a, b, threshold));
    this.sorted = images.map((image) => image.index);
    this.host.append(...this.sorted.map((index) => this.cards[index].node));
  }

  filter(fits) {
    this.visible = [];
    for (const index of this.sorted) {
      const card = this.cards[index];
      const shown = fits(card.image, card.outcome);
      if (card.node.hidden === shown) card.node.hidden = !shown;
      if (shown) this.visible.push(index);
    }
    return this.visible.length;
  }

  neighbour(index, step) {
    const at = this.visible.indexOf(index);
    if (at < 0) return this.visible[0];
    return this.visible[Math.min(this.visible.length - 1, Math.max(0, at + step))];
  }

  walk(event) {
    const card = event.target.closest(".card");
    if (!card || event.ctrlKey || event.altKey || event.metaKey) return;
    const columns = getComputedStyle(this.host).gridTemplateColumns.split(" ").length;
    const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns };
    const step = steps[event.key];
    if (step === undefined) return;
    this.cards[this.neighbour(Number(card.dataset.index), step)].node.focus();
    event.preventDefault();
    event.stopPropagation();
  }

  loadVisible() {
    for (const index of this.visible) this.cards[index].stage.load();
  }
}

class Detail {
  constructor(gallery, threshold) {
    this.dialog = document.getElementById("detail");
    this.gallery = gallery;
    this.threshold = threshold;
    this.index = null;
    document.getElementById("previous").addEventListener("click", () => this.step(-1));
    document.getElementById("next").addEventListener("click", () => this.step(1));
    this.dialog.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (step === undefined || event.target.matches("input[type=range]")) return;
      this.step(step);
      event.preventDefault();
    });
    this.dialog.addEventListener("close", () => {
      gallery.cards[this.index].node.focus();
    });
  }

  step(by) {
    this.show(this.gallery.neighbour(this.index, by));
  }

  open(index) {
    this.show(index);
    if (!this.dialog.open) this.dialog.showModal();
  }

  show(index) {
    this.index = index;
    const image = IMAGES[index];
    const stage = new Stage(image);
    stage.load(true);
    if (image.why) {
      const box = element("i", { class: "patch" });
      ["left", "top", "width", "height"].forEach((side, i) => {
        box.style.setProperty(side, `${100 * image.why.box[i]}%`);
      });
      stage.node.append(box);
    }
    document.getElementById("detail-stage").replaceChildren(stage.node);
    document.getElementById("detail-name").textContent = image.name;
    const at = this.gallery.visible.indexOf(index);
    document.getElementById("detail-place").textContent =
      at < 0 ? "" : `${at + 1} of ${this.gallery.visible.length}`;
    this.decide();
    this.explain(image);
  }

  decide() {
    if (this.index === null) return;
    const image = IMAGES[this.index];
    const threshold = this.threshold();
    const outcome = outcomeOf(image, threshold);
    const sign = image.score < threshold ? "<" : "≥";
    const facts = [
      ["Score", `${short(image.score, 5)} ${sign} threshold ${short(threshold, 5)}`],
      image.p === null ? null : ["p-value", short(image.p, 3)],
      image.y === null ? null : ["Known to be", image.y === 1 ? "good" : image.type],
      ["Size", `${image.width} × ${image.height} pixels`],
      image.path === null ? null : ["File", image.path],
    ];
    document.getElementById("detail-facts").replaceChildren(
      element("p", { class: "verdict" }, badge(outcome), element("span", { text: OUTCOMES[outcome].says })),
      element(
        "dl",
        { class: "pairs" },
        ...facts
          .filter((fact) => fact !== null)
          .map(([name, value]) =>
            element(
              "div",
              { class: name === "File" ? "stacked" : null },
              element("dt", { text: name }),
              element("dd", { text: value }),
            ),
          ),
      ),
    );
  }

  explain(image) {
    const host = document.getElementById("detail-near");
    host.replaceChildren();
    if (!image.why) return;
    const why = image.why;
    const figure = (source, text) =>
      element("figure", {}, element("img", { src: source, alt: "" }), element("figcaption", { text }));
    const pair = element("div", { class: "pair" }, figure(why.query, "most unusual patch"));
    if (why.normal) pair.append(figure(why.normal, "nearest normal patch"));
    else if (why.missing) {
      pair.append(element("p", { class: "note", text: `No picture of the nearest normal patch: ${why.missing}.` }));
    }
    host.append(
      element("h3", { text: "Why" }),
      pair,
      ...why.lines.map((line) => element("p", { class: "note", text: line })),
    );
  }
}
