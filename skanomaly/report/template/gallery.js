// Cards of images. Pictures are set when they come near the window.

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
  return element("span", { class: `badge ${outcome}` }, outcomeIcon(outcome), OUTCOMES[outcome].label);
}

class Card {
  constructor(image, rank, open) {
    this.image = image;
    this.stage = new Stage(image);
    this.badge = badge("passed");
    // A good part has no type of defect. A folder that is named after the type of defect has said it.
    const known = image.y !== -1 || image.name.startsWith(`${image.type}/`) ? null : image.type;
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
    const old = this.badge;
    this.badge = badge(outcome);
    old.replaceWith(this.badge);
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
