// The map: islands side by side, zones in them, nodes in the zones, lines for the bytes of the last minute.

import { bytes, svg } from "./show.js";

const WATER = 120, PAD = 16, HEAD = 52, ZONE_HEAD = 22, ZONE_GAP = 12, ZONES_IN_A_ROW = 2;
const ISLAND_PIXELS_MIN = 280;  // narrower islands stand below each other
const LABELLED_MAX = 12;  // nodes of a zone that have their names beside them

const name = (region) => region || "(none)";

function byZone(region) {
  const zones = new Map();
  for (const node of region.nodes) zones.set(node.zone, [...(zones.get(node.zone) || []), node]);
  return [...zones].sort(([one], [other]) => one.localeCompare(other));
}

// The size of a zone's box and the places of its nodes in it.
function layZone(nodes) {
  const labelled = nodes.length <= LABELLED_MAX;
  const step = labelled ? 30 : nodes.length <= 120 ? 16 : 9, radius = labelled ? 8 : step * 0.36;
  const columns = labelled ? 1 : Math.max(8, Math.ceil(Math.sqrt(nodes.length * 1.6)));
  const width = labelled ? 180 : Math.max(120, columns * step + PAD), height = ZONE_HEAD + Math.ceil(nodes.length / columns) * step + 6;
  const places = nodes.map((_, number) => ({
    x: labelled ? 18 : PAD / 2 + (number % columns + 0.5) * step, y: ZONE_HEAD + (Math.floor(number / columns) + 0.5) * step,
  }));
  return { labelled, radius, width, height, places };
}

function layRegion(region) {
  const zones = byZone(region).map(([zone, nodes]) => ({ zone, nodes, ...layZone(nodes) }));
  let x = PAD, y = HEAD, width = 290, rowHeight = 0;
  zones.forEach((zone, number) => {
    if (number && number % ZONES_IN_A_ROW === 0) { x = PAD; y += rowHeight + ZONE_GAP; rowHeight = 0; }
    Object.assign(zone, { x, y });
    x += zone.width + ZONE_GAP;
    rowHeight = Math.max(rowHeight, zone.height);
    width = Math.max(width, x - ZONE_GAP + PAD);
  });
  return { region, zones, width, height: y + rowHeight + PAD };
}

function drawRegion(laid, left, top) {
  const { region, zones, width, height } = laid, places = new Map();
  const ready = region.nodes.filter((one) => one.ready).length;
  const leader = region.nodes.filter((one) => one.leads).map((one) => one.name).join(", ");
  const made = svg("g", { transform: `translate(${left},${top})` },
    svg("rect", { class: `land${leader && ready === region.nodes.length ? "" : " bad"}`, width, height, rx: 26 }),
    svg("text", { class: "big", x: PAD, y: 26 }, name(region.region)),
    svg("text", { class: "quiet", x: PAD, y: 43 },
      shorten(`${ready} of ${region.nodes.length} ready, leader ${leader || "none"}`, Math.floor((width - 2 * PAD) / 6.6))));
  const dots = [];
  for (const zone of zones) {
    made.append(svg("rect", { class: "zone", x: zone.x, y: zone.y, width: zone.width, height: zone.height, rx: 8 }),
      svg("text", { class: "quiet", x: zone.x + 8, y: zone.y + 15 }, `${zone.zone || "no zone"}: ${zone.nodes.length}`));
    places.set(`zone ${zone.zone}`, { x: zone.x + zone.width / 2, y: zone.y + zone.height / 2 });
    zone.nodes.forEach((node, number) => {
      const x = zone.x + zone.places[number].x, y = zone.y + zone.places[number].y, r = zone.radius;
      places.set(`node ${node.name}`, { x, y });
      dots.push(node.ready
        ? svg("circle", { class: node.minute ? "node" : "node idle", cx: x, cy: y, r })
        : svg("rect", { class: "node unready", x: x - r, y: y - r, width: 2 * r, height: 2 * r }));
      dots[dots.length - 1].append(svg("title", {}, `${node.name}: ${node.ready ? "ready" : "not ready"}, ${bytes(node.minute)} from peers in the last minute`));
      if (node.leads) dots.push(svg("circle", { class: "leader", cx: x, cy: y, r: r + 4 }));
      if (zone.labelled) dots.push(svg("text", { x: x + r + 8, y: y + 4 }, shorten(node.name, 20)));
    });
  }
  made.append(...drawEdges(region, places), ...dots);
  return made;
}

const shorten = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);

function drawEdges(region, places) {
  const most = Math.max(1, ...region.edges.map((one) => one.minute)), kind = region.by_zone ? "zone" : "node";
  return region.edges.flatMap((edge) => {
    const from = places.get(`${kind} ${edge.source}`), to = places.get(`${kind} ${edge.target}`);
    if (!from || !to) return [];
    const width = 1.5 + 8 * Math.sqrt(edge.minute / most);
    const path = edge.source === edge.target
      ? `M${from.x},${from.y} m-14,0 a14,14 0 1 1 28,0 a14,14 0 1 1 -28,0`
      : `M${from.x},${from.y} Q${(from.x + to.x) / 2 + (to.y - from.y) * 0.25},${(from.y + to.y) / 2 - (to.x - from.x) * 0.25} ${to.x},${to.y}`;
    const line = svg("path", { class: "edge", d: path, "stroke-width": width.toFixed(1) });
    line.append(svg("title", {}, `${edge.source || "no zone"} sent ${edge.target || "no zone"} ${bytes(edge.minute)} in the last minute`));
    return [line];
  });
}

function between(crossings, one, other) {
  return crossings.filter((pair) => (pair.source === one && pair.target === other) || (pair.source === other && pair.target === one))
    .reduce((total, pair) => total + pair.total, 0);
}

function drawBorder(x1, y1, x2, y2, total) {
  const bad = total ? " bad" : "";
  const label = svg("text", { class: `border-zero${bad}`, x: (x1 + x2) / 2, y: (y1 + y2) / 2 + 7 }, bytes(total));
  const gap = 18, isUpright = x1 === x2, middleX = (x1 + x2) / 2, middleY = (y1 + y2) / 2;
  const line = (ax, ay, bx, by) => svg("line", { class: `border-line${bad}`, x1: ax, y1: ay, x2: bx, y2: by });
  return isUpright ? [line(x1, y1, x1, middleY - gap), line(x1, middleY + gap, x1, y2), label]
    : [line(x1, y1, middleX - 2.4 * gap, y1), line(middleX + 2.4 * gap, y1, x2, y1), label];
}

export function drawMap(map, regions, crossings) {
  const laid = regions.map(layRegion), fitting = Math.max(1, Math.floor(map.clientWidth / ISLAND_PIXELS_MIN));
  const columns = Math.max(1, Math.min(3, fitting, Math.ceil(Math.sqrt(laid.length))));
  const columnWidths = [], rowHeights = [];
  laid.forEach((one, number) => {
    const column = number % columns, row = Math.floor(number / columns);
    columnWidths[column] = Math.max(columnWidths[column] || 0, one.width);
    rowHeights[row] = Math.max(rowHeights[row] || 0, one.height);
  });
  const at = (sizes, index) => 10 + sizes.slice(0, index).reduce((sum, size) => sum + size + WATER, 0);
  const children = [];
  laid.forEach((one, number) => {
    const column = number % columns, row = Math.floor(number / columns), left = at(columnWidths, column), top = at(rowHeights, row);
    if (column && laid[number - 1]) {
      const x = left - WATER / 2;
      children.push(...drawBorder(x, top, x, top + rowHeights[row], between(crossings, laid[number - 1].region.region, one.region.region)));
    }
    if (row && laid[number - columns]) {
      const y = top - WATER / 2;
      children.push(...drawBorder(left, y, left + columnWidths[column], y, between(crossings, laid[number - columns].region.region, one.region.region)));
    }
    children.push(drawRegion(one, left, top));
  });
  const width = at(columnWidths, columnWidths.length) - WATER + 10, height = at(rowHeights, rowHeights.length) - WATER + 10;
  map.setAttribute("viewBox", laid.length ? `0 0 ${width} ${height}` : "0 0 300 60");
  map.setAttribute("aria-label", regions.map((one) => `${name(one.region)}: ${one.nodes.length} nodes, leader ${
    one.nodes.filter((node) => node.leads).map((node) => node.name).join(", ") || "none"}, ${one.edges.length} lines`).join("; ") || "no region yet");
  map.replaceChildren(...children);
}
