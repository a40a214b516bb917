// One image at large, and why it was flagged.

// A p-value for people: no training image as unusual is no share that is known exactly.
function shareOf(p) {
  const least = 1 / (DATA.trainScores.length + 1);
  if (p < 0.01 || p <= least * 1.001) return `under ${Math.ceil(100 * p + 1e-9)}%`;
  return `about ${percent(p, p < 0.1 ? 1 : 0)}`;
}

class Detail {
  constructor(gallery, threshold) {
    this.dialog = byId("detail");
    this.gallery = gallery;
    this.threshold = threshold;
    this.index = null;
    byId("previous").addEventListener("click", () => this.step(-1));
    byId("next").addEventListener("click", () => this.step(1));
    this.dialog.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity }[event.key];
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
    stage.photo.alt = image.name;
    if (image.why) {
      const box = element("i", { class: "patch" });
      ["left", "top", "width", "height"].forEach((side, i) => {
        box.style.setProperty(side, `${100 * image.why.box[i]}%`);
      });
      stage.node.append(box);
    }
    byId("detail-stage").replaceChildren(stage.node);
    setText("detail-name", image.name);
    this.place();
    this.decide();
    this.explain(image);
    byId("detail-body").scrollTop = 0;
    this.dialog.scrollTop = 0;
  }

  // Which of the images that are shown it is. A button that goes out must not take the focus along.
  place() {
    const { visible } = this.gallery;
    const at = visible.indexOf(this.index);
    setText("detail-place", at < 0 ? "" : `${whole(at + 1)} of ${whole(visible.length)}`);
    const ends = [["previous", at === 0, "next"], ["next", at === visible.length - 1, "previous"]];
    for (const [id, atEnd, other] of ends) {
      const focused = document.activeElement === byId(id);
      byId(id).disabled = atEnd;
      if (atEnd && focused) byId(other).focus();
    }
  }

  decide() {
    if (this.index === null) return;
    const image = IMAGES[this.index];
    const threshold = this.threshold();
    const outcome = outcomeOf(image, threshold);
    const facts = [
      ["Score", short(image.score, 5)],
      ["Flagged below", short(threshold, 5)],
      image.p === null
        ? null
        : ["Share of good parts this unusual", shareOf(image.p)],
      image.y === null ? null : image.y === 1 ? ["Known", "good part"] : ["Known defect", image.type ?? "yes"],
      ["Size", `${image.width} × ${image.height} pixels`],
    ];
    byId("detail-facts").replaceChildren(
      element("p", { class: "verdict" }, badge(outcome), element("span", { text: OUTCOMES[outcome].says })),
      element(
        "dl",
        { class: "pairs" },
        ...facts
          .filter((fact) => fact !== null)
          .map(([name, value]) =>
            element("div", {}, element("dt", { text: name }), element("dd", { text: value })),
          ),
      ),
    );
    byId("detail-facts").lastChild.title = image.p === null ? "" : `p-value ${short(image.p, 3)}`;
  }

  explain(image) {
    const host = byId("detail-near");
    byId("detail-spot").hidden = !image.why;
    byId("detail-defect").hidden = !image.outline;
    if (!image.why) {
      const text = "Only the most unusual flagged images are explained.";
      host.replaceChildren(...(EXPLAINED ? [element("p", { class: "note", text })] : []));
      return;
    }
    const why = image.why;
    const figure = (source, text) =>
      element("figure", {}, element("img", { src: source, alt: text }), element("figcaption", { text }));
    const pair = element("div", { class: "pair" }, figure(why.query, "Most unusual spot"));
    if (why.normal) pair.append(figure(why.normal, "Nearest spot of a good image"));
    else if (why.missing) {
      pair.append(element("p", { class: "note", text: `No picture of the nearest spot: ${why.missing}.` }));
    }
    host.replaceChildren(
      element("h3", { text: "Why" }),
      ...why.says.map((text) => element("p", { class: "says", text })),
      pair,
      element(
        "details",
        { class: "numbers" },
        element("summary", { text: "Numbers" }),
        image.p === null ? null : element("p", { class: "note", text: `p-value ${short(image.p, 3)}` }),
        ...why.lines.map((text) => element("p", { class: "note", text })),
      ),
    );
  }
}
