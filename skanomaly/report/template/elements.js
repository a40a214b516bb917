"use strict";
// Elements, numbers and words. Texts go through textContent alone: no data becomes markup.

const SVG = "http://www.w3.org/2000/svg";

const byId = (id) => document.getElementById(id);

function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  fill(node, attributes);
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

function drawn(tag, attributes = {}, text = null) {
  const node = document.createElementNS(SVG, tag);
  fill(node, attributes);
  if (text !== null) node.textContent = text;
  return node;
}

function fill(node, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "text") node.textContent = value;
    else if (value === true) node.setAttribute(name, "");
    else if (value !== null && value !== undefined && value !== false) {
      node.setAttribute(name, value);
    }
  }
}

function setText(id, text) {
  byId(id).textContent = text;
}

// What an outcome looks like without its colour.
const ICONS = {
  found: "M5 12.5l4.5 4.5L19 7.5",
  missed: "M6 6l12 12M18 6 6 18",
  alarm: "M12 4v10M12 19v.5",
  flagged: "M12 4v10M12 19v.5",
  passed: "M6 12h12",
};

function outcomeIcon(outcome) {
  const svg = drawn("svg", { class: "icon", viewBox: "0 0 24 24", "aria-hidden": "true" });
  svg.append(drawn("path", { d: ICONS[outcome] }));
  return svg;
}

function short(value, digits = 4) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e6 || size < 1e-4) return value.toExponential(digits - 1);
  return value.toFixed(Math.max(0, digits - 1 - Math.floor(Math.log10(size))));
}

function percent(share, digits = 1) {
  return Number.isFinite(share) ? `${(100 * share).toFixed(digits)}%` : "–";
}

const whole = (n) => n.toLocaleString("en");

const many = (n, one, more = `${one}s`) => `${whole(n)} ${n === 1 ? one : more}`;

// What a person writes as a number: with a point or a comma, a minus or a dash. Otherwise NaN.
function parsedNumber(text) {
  const plain = text.trim().replace("−", "-").replace(",", ".");
  return /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(plain) ? Number(plain) : NaN;
}

// A step of 1, 2 or 5 times a power of ten, so that a span has about so many of them.
function ticks(low, high, wanted) {
  const raw = (high - low) / wanted;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].find((factor) => factor * power >= raw * 0.999) * power;
  const out = [];
  for (let k = Math.ceil(low / step); k * step <= high + step * 1e-9; k += 1) {
    out.push(Number((k * step).toPrecision(12)));
  }
  return out;
}

// Of the numbers from one to another the one that is shortest to read.
function roundest(low, high) {
  if (low <= 0 && high >= 0) return 0;
  const power = Math.ceil(Math.log10(Math.max(Math.abs(low), Math.abs(high))));
  for (let k = power; k > power - 15; k -= 1) {
    for (const factor of [5, 2, 1]) {
      const step = factor * 10 ** k;
      const value = Math.ceil(low / step) * step;
      if (value <= high) return Number(value.toPrecision(12));
    }
  }
  return low;
}
