import { ago, byId, bytes, cell, duration, el, facts, follow, post, rows, setClock, short, speed, sums } from "./show.js";

const REQUESTS_SHOWN = 50;
const ROLES = {
  getting: "this node gets it from a peer", reading: "from this node's store", serving: "sent to a peer",
  fetching: "this node's runtime downloads it from upstream", following: "follows a peer that downloads it",
};
let zones = new Map();  // of peers, by id
let requests = [];

function showNode(node) {
  setClock(node.now);
  byId("name").textContent = node.node_name || node.peer_id.slice(-8);
  document.title = `speil: ${node.node_name || "this node"}`;
  const leader = node.leader;
  const who = leader.is_self ? "this node" : leader.host || leader.peer || "none known";
  const known = el("span", { class: "quiet" }, ` (from ${leader.known_from}`, leader.renewed_at ? ", renewed " : "",
    leader.renewed_at ? ago(leader.renewed_at) : "", ")");
  facts(byId("who"), [
    ["Region", `${node.region || "none"} (from ${node.region_from})`],
    ["Zone", node.zone ? `${node.zone} (from ${node.zone_from})` : "none"],
    ["Leader", el("span", { id: "leader" }, who, known)],
    ["Ready", el("span", { class: node.ready ? "good" : "bad" }, node.ready ? "yes" : "no")],
    ["Store", el("span", { class: node.store_available ? "good" : "bad" },
      `${node.store_kind}, ${node.store_available ? "available" : "not available"}`)],
    ["Peer id", el("code", {}, node.peer_id)],
    ["Addresses", node.addresses || "–"],
    ["Bootstrap", node.bootstrap_kind],
    ["Border", `${node.has_secret ? "with" : "without"} a region secret, ${node.has_networks ? "with" : "without"} region networks`],
    ["Version", node.version],
    ...node.notes.map((note) => ["Note", el("span", { class: "warn" }, note)]),
  ]);
}

function showTraffic(found) {
  const asked = found.hits + found.misses;
  sums(byId("traffic"), [
    ["peers answered, of requests that the store could not", asked ? `${Math.round((100 * found.hits) / asked)} %` : "–"],
    ["from peers to this node", bytes(found.peer_bytes)],
    ["from this node's store", bytes(found.own_bytes)],
    ["from upstream", bytes(found.upstream_bytes)],
    ["sent to peers", bytes(found.sent_bytes)],
  ]);
}

function bar(one) {
  const done = one.total ? Math.min(one.offset / one.total, 1) : 0;
  return el("span", {},
    el("progress", { max: 1, value: done, "aria-label": `${one.role} ${one.key}` }),
    ` ${bytes(one.offset)} of ${one.total ? bytes(one.total) : "unknown"}`);
}

function showTransfers(found) {
  rows(byId("transfers"), found.map((one) => el("tr", {},
    cell(ROLES[one.role] || one.role), cell(short(one.key)), cell(one.image || "", "name"), peerCell(one.peer),
    cell(bar(one)), cell(speed(one.offset, one.seconds), "number"))), "Nothing is being sent now.", 6);
}

function peerCell(peer) {
  const zone = zones.get(peer);
  return cell(peer ? el("span", {}, short(peer), zone ? ` ${zone}` : "") : "");
}

// a tag's key begins with the image, which has a column of its own
function shortKey(one) {
  return one.image && one.key.startsWith(`${one.image}:`) ? el("code", { title: one.key }, one.key.slice(one.image.length)) : short(one.key);
}

function showRequests(found) {
  requests = [...found, ...requests].slice(0, REQUESTS_SHOWN);
  rows(byId("requests"), requests.map((one) => el("tr", {},
    cell(ago(one.time)), cell(one.client === "peer" ? "a peer" : "this node"), cell(one.image, "name"),
    cell(shortKey(one)), cell(one.source, `source-${one.source}`), cell(one.size ? bytes(one.size) : "–", "number"),
    peerCell(one.peer), cell(speed(one.size, one.seconds), "number"), cell(`${one.method} ${one.outcome}`, "name"))),
  "No request yet.", 9);
}

function showPeers(found) {
  zones = new Map(found.peers.map((one) => [one.peer, one.zone]));
  const groups = Map.groupBy ? Map.groupBy(found.peers, (one) => one.zone) : grouped(found.peers);
  const shown = [...groups].sort(([one], [other]) => one.localeCompare(other)).map(([zone, members]) =>
    el("details", { open: found.peers.length <= 30 },
      el("summary", {}, `${zone || "no zone"}: ${members.length} ${members.length === 1 ? "peer" : "peers"}`),
      el("ul", {}, ...members.map((one) => el("li", {}, short(one.peer), ` ${one.hosts}`)))));
  if (found.left_out) shown.push(el("p", { class: "quiet" }, `and ${found.left_out} more`));
  byId("peers").replaceChildren(...(shown.length ? shown : [el("p", { class: "quiet" }, "No peers.")]));
}

function grouped(peers) {
  const groups = new Map();
  for (const one of peers) groups.set(one.zone, [...(groups.get(one.zone) || []), one]);
  return groups;
}

function showImages(found) {
  byId("images-caption").textContent = found.error || `${found.total} ${found.total === 1 ? "image" : "images"}`
    + (found.total > found.images.length ? `, the first ${found.images.length} are shown` : "");
  rows(byId("images"), found.images.map((one) => el("tr", {},
    cell(one.name, "name"), cell(short(one.digest)),
    el("td", { class: "number", "data-holders": one.digest }, "not counted yet"))), "No images.", 3);
  showHolders({});
}

const holdersOf = new Map();  // peers that hold an image, by its digest
function showHolders(changed) {
  for (const [digest, count] of Object.entries(changed)) holdersOf.set(digest, count);
  for (const shown of document.querySelectorAll("[data-holders]")) {
    const count = holdersOf.get(shown.dataset.holders);
    if (count !== undefined && shown.textContent !== `${count + 1}`) shown.textContent = count + 1;
  }
}

function showKeptOut(found) {
  const layers = Object.entries(found.layers).filter(([, count]) => count);
  const total = layers.reduce((sum, [, count]) => sum + count, 0);
  byId("kept-sums").textContent = total
    ? `${total} attempts, by layer: ${layers.map(([layer, count]) => `${layer} ${count}`).join(", ")}` : "0 attempts";
  byId("kept-sums").className = total ? "warn" : "good";
  rows(byId("kept"), found.last.map((one) => el("tr", {},
    cell(ago(one.time)), cell(one.layer), cell(one.who, "name"), cell(one.why), cell(one.count, "number"),
    cell(one.what_to_do))), "Nobody was kept out.", 6);
}

// --- trace ---------------------------------------------------------------------------------------------------------

function holders(part) {
  if (!part.holders_count) return el("span", { class: "quiet" }, "nobody found");
  const byZone = new Map();
  for (const one of part.holders) byZone.set(one.zone, [...(byZone.get(one.zone) || []), one.host || one.peer]);
  const text = [...byZone].map(([zone, hosts]) => `${zone || "no zone"}: ${hosts.join(", ")}`).join("; ");
  const more = part.holders_count > part.holders.length ? ` and ${part.holders_count - part.holders.length} more` : "";
  return el("span", {}, text + more);
}

function showTrace(found) {
  const tag = found.tag ? `${found.tag.does} (${duration(found.tag.seconds)}). ` : "";
  byId("trace-caption").textContent = `${found.image} for ${found.platform}. ${tag}${found.note ? `${found.note}.` : ""}`;
  rows(byId("parts"), found.parts.map((part) => el("tr", {},
    cell(part.kind), cell(short(part.digest)), cell(part.size ? bytes(part.size) : "–", "number"),
    cell(part.held_here ? "yes" : "no"), cell(holders(part)), cell(duration(part.find_seconds), "number"),
    cell(part.measured ? duration(part.measured.seconds) : "–", "number"),
    cell(part.measured ? speed(part.measured.bytes, part.measured.seconds) : "–", "number"),
    cell(part.does, `source-${part.source.replace(" ", "-")}`))), "No parts are known.", 9);
  byId("trace-result").hidden = false;
}

async function trace(event) {
  event.preventDefault();
  const button = byId("trace-button"), status = byId("trace-status");
  const query = new URLSearchParams({ image: byId("image").value, measure: byId("measure").checked });
  button.disabled = true;
  status.className = "";
  status.textContent = "asking peers";
  try {
    const found = await post(`trace?${query}`);
    showTrace(found);
    status.textContent = found.does;
  } catch (error) {
    byId("trace-result").hidden = true;
    status.className = "bad";
    status.textContent = error.message;
  } finally {
    button.disabled = false;
  }
}

byId("trace-form").addEventListener("submit", trace);
byId("image").value = new URLSearchParams(location.search).get("image") || "";
follow("events", {
  node: showNode, traffic: showTraffic, transfers: showTransfers, peers: showPeers, images: showImages,
  kept_out: showKeptOut, holders: showHolders,
  requests: (found) => { if (found.is_first) requests = []; showRequests(found.requests); },
}, byId("link"));
