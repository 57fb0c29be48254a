// The page of `cellseg serve`: what it knows it asks of the server that it came from. Names from
// files are only ever set as text.
"use strict";

const el = (id) => document.getElementById(id);
const number = (value, digits = 0) =>
  value == null ? "–" : value.toLocaleString("en", { maximumFractionDigits: digits });
const short = (value) =>
  value >= 100 ? number(value) : value.toLocaleString("en", { maximumSignificantDigits: 3 });

const state = { at: 0, about: null, counts: null, shown: [], of: "nuclei", masks: true, pinned: false };
let view = null;

function made(name, text = "", properties = {}) {
  const node = Object.assign(document.createElement(name), properties);
  node.textContent = text;
  return node;
}

function drawn(name, attributes) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  return node;
}

function note(text) {
  const list = el("notes").querySelector("ul");
  if ([...list.children].some((item) => item.textContent === text)) return;
  list.append(made("li", text));
  el("notes").hidden = false;
}

async function ask(address) {
  let answer;
  try {
    answer = await fetch(address);
  } catch {
    throw new Error("the server does not answer any more: start cellseg serve again");
  }
  if (answer.status === 410) watch();
  if (!answer.ok) throw new Error((await answer.text()).trim());
  return answer.json();
}

// A word for each column, and its unit.
const UNITS = [[/^(.*area.*)_px$/, "px²"], [/_um2$/, "µm²"], [/_um$/, "µm"], [/_px$/, "px"], [/_deg$/, "°"]];
function readable(column) {
  const found = UNITS.find(([ending]) => ending.test(column));
  if (!found) return [column.replaceAll("_", " "), ""];
  return [column.replace(/_(um2|um|px|deg)$/, "").replaceAll("_", " "), found[1]];
}

function rows(pairs) {
  const table = made("table"), body = made("tbody");
  for (const [name, value] of pairs) {
    const row = made("tr");
    row.append(made("th", name, { scope: "row" }), made("td", value));
    body.append(row);
  }
  table.append(body);
  return table;
}

// Tiles: level 0 is the coarsest, each further one twice as fine.
function source(kind, query) {
  const { width, height, tile, halvings, version } = state.about;
  const place = state.at;
  return {
    width, height, tileSize: tile, tileOverlap: 0, minLevel: 0, maxLevel: halvings,
    getTileUrl: (level, x, y) =>
      `${place}/${kind}/${halvings - level}/${y}/${x}?v=${version}${query}`,
  };
}

function masksSource() {
  const bits = state.shown.reduce((sum, on, n) => (on ? sum | (1n << BigInt(n)) : sum), 0n);
  return source(state.of, `&shown=${bits.toString(16)}`);
}

let layer = null, changes = 0;
function showMasks() {
  const mine = ++changes;
  const old = layer;
  layer = null;
  if (!state.masks || !state.shown.some(Boolean)) {
    if (old) view.world.removeItem(old);
    return;
  }
  view.addTiledImage({
    tileSource: masksSource(),
    success: ({ item }) => {
      if (mine !== changes) return view.world.removeItem(item);
      layer = item;
      marked(item, "masks");
      if (old) whenLoaded(item, () => view.world.getIndexOfItem(old) >= 0 && view.world.removeItem(old));
    },
  });
}

function whenLoaded(item, then) {
  if (item.getFullyLoaded()) return then();
  const seen = () => {
    if (!item.getFullyLoaded()) return;
    item.removeHandler("fully-loaded-change", seen);
    then();
  };
  item.addHandler("fully-loaded-change", seen);
}

// When each layer was there, for whoever measures it.
function marked(item, name) {
  whenLoaded(item, () => {
    document.documentElement.dataset[name] = "shown";
    performance.mark(`cellseg ${name}`);
  });
}

// Places: the slide's own pixels, 0 at the corner of the first.
const toSlide = (point) => {
  const found = view.viewport.viewerElementToViewportCoordinates(point);
  return { x: found.x * state.about.width, y: found.y * state.about.width };
};
const scaleNow = () => (view.viewport.getZoom(true) * view.viewport.getContainerSize().x) / state.about.width;

function follow() {
  if (!state.about || !view.viewport) return;
  const zero = view.viewport.viewportToViewerElementCoordinates(new OpenSeadragon.Point(0, 0));
  const scale = scaleNow();
  el("drawn").style.display = el("world").hasChildNodes() ? "" : "none"; // a layer costs each frame
  el("world").setAttribute("transform", `translate(${zero.x} ${zero.y}) scale(${scale})`);
  for (const text of el("names").children) {
    text.setAttribute("x", zero.x + text.dataset.x * scale);
    text.setAttribute("y", zero.y + text.dataset.y * scale - 6);
  }
  const { mpp } = state.about;
  const longest = 160 / scale * (mpp ?? 1);
  const power = 10 ** Math.floor(Math.log10(longest) + 1e-9);
  const length = [5, 2, 1].map((step) => step * power).find((fits) => fits <= longest * (1 + 1e-9));
  const text = mpp == null ? `${number(length, 3)} px` : length >= 1000 ? `${number(length / 1000, 3)} mm` : `${number(length, 4)} µm`;
  el("bar").firstElementChild.style.width = `${(length / (mpp ?? 1)) * scale}px`;
  el("bar").lastElementChild.textContent = text;
}

function outline(rings, kind) {
  const lines = rings.map((ring) => "M" + ring.map(([x, y]) => `${x} ${y}`).join("L") + "Z");
  return drawn("path", { class: kind, d: lines.join("") });
}

function showLines() {
  el("world").replaceChildren();
  const { quality, version, width, height } = state.about;
  if (quality) {
    const picture = drawn("image", {
      class: "quality", href: `${state.at}/quality?v=${version}`, preserveAspectRatio: "none",
      width: quality.width, height: quality.height });
    picture.style.clipPath = `inset(0 ${quality.width - width}px ${quality.height - height}px 0)`;
    el("world").append(picture);
  }
  el("names").replaceChildren();
  for (const { kind, name, rings } of state.about.lines) {
    if (!rings.length) continue;
    el("world").append(outline(rings, kind));
    if (kind !== "region") continue;
    const [x, y] = rings[0].reduce((top, point) => (point[1] < top[1] ? point : top));
    const text = drawn("text", {});
    text.textContent = name;
    Object.assign(text.dataset, { x, y });
    el("names").append(text);
  }
}

// One cell: under the pointer, or kept by a click.
let asking = false, wanted = null;
async function hover(place, pin = false) {
  wanted = { place, pin };
  if (asking) return;
  asking = true;
  while (wanted) {
    const { place: now, pin: keep } = wanted, from = state.at;
    wanted = null;
    try {
      const found = await ask(`${from}/at?v=${state.about?.version}&y=${now.y.toFixed(2)}&x=${now.x.toFixed(2)}&of=${state.of}`);
      if (from === state.at && !wanted) showCell(found, now, keep);
    } catch (error) {
      note(error.message);
    }
  }
  asking = false;
}

function showCell(found, place, keep) {
  const tip = el("tip");
  tip.hidden = !found || keep;
  if (keep) state.pinned = Boolean(found);
  if (!found && keep) forget();
  if (state.pinned && !keep) {
    if (found) tipFor(found, place);
    return;
  }
  document.querySelector("#world .cell")?.remove();
  if (!found) return;
  el("world").append(outline(found.outline, "cell"));
  follow();
  el("cell-name").textContent = `Cell ${found.label}`;
  el("cell-hint").textContent = state.pinned ? "Kept; Escape lets it go." : "A click keeps it here.";
  const pairs = found.values.map(([name, value]) => {
    const [word, unit] = readable(name);
    return [word, !value ? "–" : unit ? `${value} ${unit}` : value];
  });
  el("cell").replaceChildren(pairs.length ? rows(pairs) : made("p", "the table has no row for it"));
  if (!keep) tipFor(found, place);
}

function forget() {
  state.pinned = false;
  document.querySelector("#world .cell")?.remove();
  el("cell").replaceChildren();
  el("cell-name").textContent = "A cell";
  el("cell-hint").textContent = "Point at a cell for its measurements; a click keeps them here.";
  el("tip").hidden = true;
}

function tipFor(found, place) {
  const value = Object.fromEntries(found.values);
  const area = value.area_um2 ? `${value.area_um2} µm²` : value.area_px ? `${value.area_px} px²` : "";
  const says = [`${value.class ?? ""} ${found.label}`.trim(), area, value.score ? `score ${value.score}` : ""];
  if (value.region) says.push(value.region);
  const tip = el("tip");
  tip.textContent = says.filter(Boolean).join("\n");
  tip.hidden = false;
  const at = view.viewport.viewportToViewerElementCoordinates(
    new OpenSeadragon.Point(place.x / state.about.width, place.y / state.about.width));
  const room = el("slide").getBoundingClientRect();
  tip.style.left = `${Math.max(4, Math.min(at.x + 16, room.width - tip.offsetWidth - 8))}px`;
  tip.style.top = `${Math.max(4, Math.min(at.y + 16, room.height - tip.offsetHeight - 8))}px`;
}

// A rectangle.
let start = null, box = null;
const drawing = () => el("rectangle").getAttribute("aria-pressed") === "true";
function draw(on) {
  el("rectangle").setAttribute("aria-pressed", on);
  el("slide").classList.toggle("drawing", on);
}

function stretch(to) {
  const { width, height } = state.about;
  const cut = (value, most) => Math.round(Math.max(0, Math.min(value, most)));
  const [x0, x1] = [start.x, to.x].sort((a, b) => a - b).map((x) => cut(x, width));
  const [y0, y1] = [start.y, to.y].sort((a, b) => a - b).map((y) => cut(y, height));
  box = { y0, x0, y1, x1 };
  let shape = document.querySelector("#world .box");
  if (!shape) el("world").append((shape = drawn("rect", { class: "box" })));
  for (const [key, value] of Object.entries({ x: x0, y: y0, width: x1 - x0, height: y1 - y0 }))
    shape.setAttribute(key, value);
  follow();
}

async function count() {
  const from = state.at;
  el("inside").replaceChildren(made("p", state.counts ? "counting …" : "reading the table …", { className: "muted" }));
  try {
    const found = await ask(`${from}/box?${new URLSearchParams({ ...box, v: state.about?.version })}`);
    if (from === state.at) showCounts(found);
  } catch (error) {
    el("inside").replaceChildren(made("p", error.message));
  }
}

function showCounts(found) {
  const { mpp, classes } = state.about;
  const unit = mpp == null ? "megapixel" : "mm²";
  const table = made("table"), head = made("thead"), body = made("tbody"), titles = made("tr");
  titles.append(made("th", "class"), made("th", "cells"), made("th", `per ${unit}`));
  head.append(titles);
  const line = (name, cells, density, kind) => {
    const row = made("tr", "", { className: kind });
    row.append(made("th", name, { scope: "row" }), made("td", number(cells)), made("td", density == null ? "–" : short(density)));
    body.append(row);
  };
  line("all", found.cells, found.density, "all");
  if (classes.length > 1)
    classes.forEach(({ name }, n) => line(name, found.per_class[n], found.density_per_class[n], ""));
  table.append(head, body);
  const [y0, x0, y1, x1] = found.box;
  const size = mpp == null
    ? `${number(x1 - x0)} × ${number(y1 - y0)} px, ${short(found.area)} megapixels`
    : `${short((x1 - x0) * mpp)} × ${short((y1 - y0) * mpp)} µm, ${short(found.area)} mm²`;
  const usual = found.median_area == null ? "" : `; median area ${short(found.median_area)} ${mpp == null ? "px²" : "µm²"}`;
  el("inside").replaceChildren(
    table,
    made("p", size + usual),
    made("p", `--box ${y0} ${x0} ${y1} ${x1} (Y0 X0 Y1 X1, pixels of the slide). A cell counts whose centre is inside.`, { className: "muted hint" }),
  );
}

function clear() {
  start = box = null;
  document.querySelector("#world .box")?.remove();
  el("inside").replaceChildren();
}

// Regions that are drawn, named and kept: a rectangle, a polygon by clicks, or freehand.
let tool = null, trial = [], kept = { tag: "", geojson: { features: [] }, totals: [], edit: false };
const closed = (points) => (points.length > 2 ? [points.map(({ x, y }) => [x, y])] : []);

function takeTool(name) {
  tool = tool === name ? null : name;
  trial = [];
  clear();
  draw(false);
  el("slide").classList.toggle("drawing", Boolean(tool));
  for (const button of document.querySelectorAll("#tools [data-tool]"))
    button.setAttribute("aria-pressed", button.dataset.tool === tool);
  el("how").textContent = { polygon: "Click the corners; a double click or Enter ends it.",
    freehand: "Drag around the region." }[tool] ?? "";
  offer([]);
}

function showTrial(points, isDone = false) {
  document.querySelector("#world .trial")?.remove();
  if (points.length > 1) {
    const line = points.map(({ x, y }) => `${x} ${y}`).join("L");
    el("world").append(drawn("path", { class: "trial", d: `M${line}${isDone ? "Z" : ""}` }));
  }
  follow();
}

// A draft that waits for its name; nothing of the one before stays, its name least of all.
function offer(points) {
  trial = points;
  el("region-name").value = "";
  el("refused").hidden = true;
  const ready = kept.edit && points.length > 2;
  showTrial(points, ready);
  el("keep").hidden = !ready;
  if (!ready) return;
  tool = null;
  el("slide").classList.remove("drawing");
  for (const button of document.querySelectorAll("#tools [data-tool]")) button.setAttribute("aria-pressed", false);
  el("how").textContent = "";
  el("region-name").focus();
}

const corners = ({ y0, x0, y1, x1 }) => [{ x: x0, y: y0 }, { x: x1, y: y0 }, { x: x1, y: y1 }, { x: x0, y: y1 }];
const ringsOf = ({ type, coordinates }) => (type === "Polygon" ? coordinates : coordinates.flat());

async function regions(from) {
  try {
    const found = await ask(`${from}/regions?v=${state.about?.version}`);
    if (from === state.at) showRegions(found);
  } catch (error) {
    note(error.message);
  }
}

function showRegions(found) {
  kept = { ...kept, ...found };
  el("regions").hidden = !kept.edit && !kept.totals.length;
  el("tools").hidden = !kept.edit;
  for (const old of document.querySelectorAll("#world .drawn, #names .of-drawn")) old.remove();
  for (const { geometry, properties } of kept.geojson.features) {
    const rings = ringsOf(geometry);
    if (!rings.length) continue;
    el("world").append(outline(rings, "drawn"));
    const [x, y] = rings[0].reduce((top, point) => (point[1] < top[1] ? point : top));
    const text = drawn("text", { class: "of-drawn" });
    text.textContent = properties.name;
    Object.assign(text.dataset, { x, y });
    el("names").append(text);
  }
  const table = el("kept");
  table.replaceChildren();
  if (kept.totals.length) {
    const head = made("tr");
    const markers = Object.keys(kept.totals[0].index);
    for (const title of ["region", "cells", "per mm²", ...markers.map((name) => `${name} +`), ""]) head.append(made("th", title));
    table.append(head);
    kept.totals.forEach((total, n) => {
      const row = made("tr", "", { title: total.said }), last = made("td");
      row.append(made("td", total.name), made("td", number(total.cells)), made("td", total.density == null ? "–" : short(total.density)));
      for (const name of markers) row.append(made("td", total.index[name] == null ? "–" : `${number(100 * total.index[name], 1)} %`));
      if (kept.edit) {
        const gone = made("button", "×", { type: "button", title: `Delete ${total.name}` });
        gone.setAttribute("aria-label", gone.title);
        gone.addEventListener("click", () => send(kept.geojson.features.filter((_, k) => k !== n)));
        last.append(gone);
      }
      row.append(last);
      table.append(row);
    });
  }
  el("geojson").hidden = !kept.totals.length;
  el("geojson").href = `${state.at}/drawn.geojson`;
  follow();
}

// All regions are sent together, with the tag of those that this page saw.
async function send(features) {
  const from = state.at;
  el("refused").hidden = true;
  try {
    const answer = await fetch(`${from}/regions?tag=${kept.tag}`, {
      method: "POST", headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ type: "FeatureCollection", features }),
    });
    if (!answer.ok) throw new Error((await answer.text()).trim());
    const found = await answer.json();
    if (from !== state.at) return;
    showRegions(found);
    offer([]);
    clear();
  } catch (error) {
    el("refused").textContent = error.message;
    el("refused").hidden = false;
  }
}

function keep(event) {
  event.preventDefault();
  const ring = closed(trial)[0];
  if (!ring) return;
  const geometry = { type: "Polygon", coordinates: [[...ring, ring[0]]] };
  const properties = { objectType: "annotation", name: el("region-name").value.trim() };
  send([...kept.geojson.features, { type: "Feature", geometry, properties }]);
}

// The panel.
function box_of(text, checked, then, extra = []) {
  const line = made("label"), input = made("input", "", { type: "checkbox", checked });
  input.addEventListener("change", () => then(input.checked));
  line.append(input, ...extra, made("span", text));
  return line;
}

function panel() {
  const { name, image, classes, grown, notes, lines, quality } = state.about;
  document.title = `${name} – cellseg`;
  el("name").textContent = image || name;
  el("result").title = name;
  el("notes").querySelector("ul").replaceChildren();
  el("notes").hidden = true;
  notes.forEach(note);
  const list = el("classes");
  list.replaceChildren();
  classes.forEach((one, n) => {
    const swatch = made("i", "", { className: "swatch" });
    swatch.style.background = one.colour;
    const item = made("li");
    const line = box_of(one.name, state.shown[n], (on) => { state.shown[n] = on; showMasks(); }, [swatch]);
    line.append(made("span", number(one.cells), { className: "count" }));
    item.append(line);
    list.append(item);
  });
  el("switches").replaceChildren(
    box_of("all outlines (O)", state.masks, (on) => { state.masks = on; showMasks(); }));
  if (grown) el("switches").append(box_of("cells grown around the nuclei", state.of === "cells", (on) => {
    state.of = on ? "cells" : "nuclei"; forget(); showMasks(); }));
  if (quality) {
    const swatches = quality.faults.map(({ colour }) => {
      const swatch = made("i", "", { className: "swatch" });
      swatch.style.background = colour;
      return swatch;
    });
    el("switches").append(box_of(quality.faults.map((one) => one.name).join(", "), true, (on) => {
      document.querySelector("#world .quality").style.display = on ? "" : "none"; }, swatches));
  }
  if (lines.some(({ rings }) => rings.length)) el("switches").append(
    box_of("borders of regions and tissue", true, (on) => {
      for (const shape of document.querySelectorAll("#world .region, #world .tissue, #names text"))
        shape.style.display = on ? "" : "none";
    }));
  total(classes.every(({ cells }) => cells != null) ? classes.reduce((sum, { cells }) => sum + cells, 0) : null);
}

function total(cells) {
  const { object, corrected, width, height, mpp } = state.about;
  const what = object === "nucleus" ? "nuclei" : "cells";
  const side = mpp == null ? `${number(width)} × ${number(height)} px` : `${short(width * mpp / 1000)} × ${short(height * mpp / 1000)} mm`;
  el("total").textContent = `${cells == null ? "counting" : number(cells)} ${what}${corrected ? ", corrected by hand" : ""}; ${side}`;
}

async function counts(from) {
  try {
    const found = await ask(`${from}/counts?v=${state.about?.version}`);
    if (from !== state.at) return;
    state.counts = found;
    performance.mark("cellseg counts");
    document.querySelectorAll("#classes .count").forEach((text, n) => (text.textContent = number(found.per_class[n])));
    total(found.cells);
  } catch (error) {
    note(error.message);
  }
}

// Masks that need the table are not asked for before it is read: they would keep tiles waiting.
async function masksAndCounts(place, slide = null) {
  if (state.about.outlined) {
    showMasks();
    if (slide) whenLoaded(slide, () => counts(place));
    else counts(place);
  } else {
    await counts(place);
    if (place === state.at) showMasks();
  }
}

let opening = false;
async function open(place, before = null) {
  state.at = place;
  state.about = state.counts = null;
  for (const name of ["slide", "masks"]) delete document.documentElement.dataset[name];
  clear();
  forget();
  takeTool(null);
  ++changes;
  layer = null;
  view.world.removeAll();
  opening = true;
  try {
    const about = await ask(`${place}/about`);
    if (place !== state.at) return;
    Object.assign(state, { about, shown: about.classes.map(() => true), of: "nuclei", masks: true });
  } catch (error) {
    el("name").textContent = "";
    el("total").textContent = "";
    note(error.message);
    return;
  } finally {
    if (place === state.at) opening = false;
  }
  document.querySelector("main").classList.toggle("dark", state.about.dark);
  panel();
  showLines();
  regions(place);
  const { width, height } = state.about;
  const stays = before && before.width === width && before.height === height;
  const ready = () => { if (!stays) view.viewport.goHome(true); follow(); };
  if (state.about.slide)
    view.addTiledImage({ tileSource: source("slide", ""), success: ({ item }) => {
      if (place !== state.at) return view.world.removeItem(item);
      marked(item, "slide");
      ready();
      masksAndCounts(place, item);
    } });
  else {
    view.world.addOnceHandler("add-item", ready);
    masksAndCounts(place);
  }
}

// A result that changed on the disk is shown anew; true where that was so, or nobody knows.
let watching = false;
async function watch() {
  if (opening || watching) return true;
  watching = true;
  const { at: place, about } = state;
  try {
    const found = await ask(`${place}/version`);
    if (place !== state.at || found.version === about?.version) return false;
    await open(place, about);
    if (about && state.about)
      note(found.token === about.token
        ? "the result was changed while this page was open; it is shown as it is now"
        : "the slide was counted again while this page was open; the new count is shown");
  } catch (error) {
    note(error.message);
  } finally {
    watching = false;
  }
  return true;
}

async function begin() {
  view = OpenSeadragon({
    element: el("slide"), drawer: "canvas", showNavigationControl: false, showNavigator: true,
    navigatorPosition: "TOP_RIGHT", navigatorSizeRatio: 0.16, maxZoomPixelRatio: 8, preserveViewport: true,
    visibilityRatio: 0.2, animationTime: 0.4, minPixelRatio: 0.7, gestureSettingsMouse: { clickToZoom: false },
    gestureSettingsTouch: { clickToZoom: false, dblClickToZoom: true },
    imageLoaderLimit: 6, maxImageCacheCount: 800, timeout: 300000,
  });
  for (const event of ["update-viewport", "resize"]) view.addHandler(event, follow);
  view.world.addHandler("add-item", follow);
  view.addHandler("tile-load-failed", async () => {
    if (!(await watch())) note("a part of the slide or of its masks cannot be read; it stays empty");
  });
  view.addHandler("canvas-press", (event) => {
    start = drawing() || event.originalEvent.shiftKey ? toSlide(event.position) : null;
  });
  view.addHandler("canvas-drag", (event) => {
    if (tool === "freehand" && state.about) {
      event.preventDefaultAction = true;
      trial.push(toSlide(event.position));
      return showTrial(trial);
    }
    if (!start || !state.about) return;
    event.preventDefaultAction = true;
    stretch(toSlide(event.position));
  });
  view.addHandler("canvas-drag-end", (event) => {
    if (tool === "freehand") {
      event.preventDefaultAction = true;
      return offer(trial);
    }
    if (!start || !box) return;
    event.preventDefaultAction = true;
    start = null;
    draw(false);
    count();
    if (kept.edit) offer(corners(box));
  });
  view.addHandler("canvas-double-click", (event) => {
    if (tool !== "polygon") return;
    event.preventDefaultAction = true;
    offer(trial.slice(0, -1)); // its second click is the same corner again
  });
  view.addHandler("canvas-click", (event) => {
    if (event.quick && state.about && tool === "polygon") {
      trial.push(toSlide(event.position));
      return showTrial(trial);
    }
    if (event.quick && state.about && !drawing() && !tool) hover(toSlide(event.position), true);
  });
  const over = view.canvas;
  over.addEventListener("pointermove", (event) => {
    if (!state.about || event.buttons || event.pointerType === "touch") return;
    const corner = over.getBoundingClientRect();
    hover(toSlide(new OpenSeadragon.Point(event.clientX - corner.left, event.clientY - corner.top)));
  });
  over.addEventListener("pointerleave", () => { wanted = null; el("tip").hidden = true; });
  el("rectangle").addEventListener("click", () => { const on = !drawing(); takeTool(null); draw(on); });
  for (const button of document.querySelectorAll("#tools [data-tool]"))
    button.addEventListener("click", () => takeTool(button.dataset.tool));
  el("keep").addEventListener("submit", keep);
  el("drop").addEventListener("click", () => { offer([]); clear(); });
  for (const button of document.querySelectorAll("#zoom button"))
    button.addEventListener("click", () => {
      if (button.dataset.by === "0") view.viewport.goHome();
      else view.viewport.zoomBy(Number(button.dataset.by)).applyConstraints();
    });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") { takeTool(null); forget(); }
    if (event.target instanceof HTMLInputElement && event.target.id) return;
    if (event.key === "Enter" && tool === "polygon") {
      event.preventDefault(); // the same key press would submit the form that takes the focus
      offer(trial);
    }
    if (event.key === "o" && !event.ctrlKey && !event.metaKey && !(event.target instanceof HTMLSelectElement))
      el("switches").querySelector("input")?.click();
  });
  try {
    const names = await ask("results");
    const list = el("result");
    names.forEach((name, n) => list.append(made("option", name, { value: n })));
    list.hidden = names.length < 2;
    list.addEventListener("change", () => open(Number(list.value)));
    await open(0);
    setInterval(() => document.hidden || watch(), 4000);
  } catch (error) {
    note(error.message);
  }
}

begin();
