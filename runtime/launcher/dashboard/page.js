"use strict";
(() => {
const byId = (id) => document.getElementById(id);
const root = document.documentElement;

// ------------------------------------------------------------------------------------------------------- the data
// As /snapshot gives it; /events adds to it. What peers say of themselves reaches the page as text, never as markup.

let data = null;          // the snapshot, grown by events
let column = {};          // name: place in a row
let ends = [];            // tokens of the run at the end of each row
let places = [];          // where a row's point stands on the axis of tokens
let shown = null;         // round up to which the run is shown; null: all of it
let view = null;          // [from, to] in tokens; null: all
let lastId = 0;
let connection = "connecting";
const mostRows = 20000;

function addPlace(row) {
  const width = row[column.last] - row[column.first] + 1;
  const end = (ends.length ? ends[ends.length - 1] : 0) + row[column.tokens];
  ends.push(end);
  // Rounds that nobody told of have no loss: the point stands among those that were.
  places.push(end - 0.5 * row[column.tokens] * Math.min(1, row[column.seen] / width));
}

function takeSnapshot(fresh) {
  data = fresh;
  column = {};
  data.columns.forEach((name, i) => { column[name] = i; });
  ends = [];
  places = [];
  data.rows.forEach(addPlace);
  lastId = fresh.id;
}

function takeUpdate(update) {
  for (const row of update.rows) {
    if (data.rows.length && row[column.first] <= data.rows[data.rows.length - 1][column.last]) continue;
    data.rows.push(row);
    addPlace(row);
  }
  const news = (list, have, round) => list.filter((one) => !have.length || round(one) > round(have[have.length - 1]));
  data.evaluations.push(...news(update.evaluations, data.evaluations, (e) => e[0]));
  data.samples.push(...news(update.samples, data.samples, (s) => s.round));
  // The snapshot may hold what the first event after it brings.
  const same = (a, b) => a.round === b.round && a.kind === b.kind && a.person === b.person;
  const marks = update.marks.filter((mark) => !data.marks.some((known) => same(mark, known)));
  data.marks.push(...marks);
  for (const mark of marks) announce(sentence(mark) + ".");
  if (update.people) data.people = update.people;
  data.states = update.states;
  for (const name of ["run", "ended", "paused", "phase", "time", "progress", "reasons", "reached", "loading"]) data[name] = update[name];
}

/// Index of the last row that begins at or before a round; -1: none.
function rowOf(round) {
  let low = 0, high = data.rows.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (data.rows[middle][column.first] <= round) low = middle + 1; else high = middle;
  }
  return low - 1;
}

function tokensBefore(round) {
  const i = rowOf(round);
  if (i < 0) return 0;
  const row = data.rows[i];
  const part = Math.min(1, (round - row[column.first]) / (row[column.last] - row[column.first] + 1));
  return ends[i] - row[column.tokens] * (1 - part);
}

const lastRound = () => data.rows.length ? data.rows[data.rows.length - 1][column.last] : 0;
const until = () => shown === null ? Infinity : shown;
/// How many rows are shown.
const rowCount = () => shown === null ? data.rows.length : rowOf(shown) + 1;

// ------------------------------------------------------------------------------------------------------- words

/// In a unit that is written on, as "kB".
function amount(value, unit) {
  const text = short(value);
  return text + (/[a-zA-Z]$/.test(text) ? "" : " ") + unit;
}
function short(value) {
  if (value === null || value === undefined || !isFinite(value)) return "–";
  const units = [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]];
  for (const [size, unit] of units) if (value >= size) return (value / size).toPrecision(3) + " " + unit;
  return value >= 100 ? value.toFixed(0) : value >= 1 ? String(+value.toPrecision(3)) : value === 0 ? "0" : value.toPrecision(2);
}
const bytes = (value) => value === null || !isFinite(value) ? "–" : amount(value, "B");
function duration(seconds) {
  if (!isFinite(seconds)) return "–";
  if (seconds < 60) return seconds < 10 ? seconds.toFixed(1) + " s" : Math.round(seconds) + " s";
  if (seconds < 600) return Math.floor(Math.round(seconds) / 60) + " min " + Math.round(seconds) % 60 + " s";
  const minutes = Math.round(seconds / 60);
  if (minutes < 60) return minutes + " min";
  if (minutes < 48 * 60) return Math.floor(minutes / 60) + " h " + minutes % 60 + " min";
  return (minutes / 1440).toFixed(1) + " days";
}
const loss = (value) => value === null || value === undefined ? "–" : value.toFixed(4);
const count = (n, one, many) => n === 1 ? "1 " + one : n + " " + many;
const nameOf = (person) => data.people[person] ? data.people[person].name : "a peer";

function sentence(mark) {
  const who = mark.person === null ? "" : nameOf(mark.person);
  const long = mark.seconds === null ? "" : duration(mark.seconds);
  switch (mark.kind) {
    case "joined": return who + " joined";
    case "left": return who + " left";
    case "lost": return who + " was lost";
    case "returned": return who + " returned after " + long;
    case "takeover": return "another peer orders the rounds, after " + long;
    case "paused": return "the run was paused";
    case "resumed": return "the run goes on" + (long ? ", after " + long : "");
    default: return mark.kind;
  }
}

// ------------------------------------------------------------------------------------------------------- elements

function say(id, text) {
  const element = byId(id);
  if (element.textContent !== text) element.textContent = text;
}
function make(tag, text, attributes) {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  for (const name in attributes) element.setAttribute(name, attributes[name]);
  return element;
}
function part(element, value) { element.style.setProperty("--part", String(Math.max(0, Math.min(1, value || 0)))); }

let spoken = [];
let speaking = 0;
/// For screen readers, a few words at a time.
function announce(text) {
  spoken.push(text);
  if (speaking) return;
  speaking = setTimeout(() => {
    const most = 4;
    byId("announcer").textContent = spoken.length > most ? count(spoken.length, "event", "events") + ". " + spoken.slice(-most).join(" ") : spoken.join(" ");
    spoken = [];
    speaking = 0;
  }, 1000);
}

// ------------------------------------------------------------------------------------------------------- as of a round

/// What the figures say of the run, now or as of the round that is shown.
function figures() {
  const all = rowCount();
  const rows = data.rows;
  if (shown === null || !all) return {...data.progress, part: data.progress.rounds ? data.progress.round / data.progress.rounds : 0};
  let tokens = 0, seconds = 0, allTokens = 0, allSeconds = 0;
  for (let i = 0; i < all; ++i) {
    const seen = rows[i][column.tokens] * rows[i][column.seen] / (rows[i][column.last] - rows[i][column.first] + 1);
    allTokens += seen;
    allSeconds += rows[i][column.seconds];
    if (i >= all - 16) { tokens += seen; seconds += rows[i][column.seconds]; }
  }
  const rounds = data.progress.rounds || lastRound() + 1;
  return {round: shown + 1, rounds, tokens: tokensBefore(shown + 1), tokens_total: data.progress.tokens_total, part: (shown + 1) / rounds,
          tokens_per_second: seconds ? tokens / seconds : 0, tokens_per_second_run: allSeconds ? allTokens / allSeconds : 0};
}

/// The same for why it works: of the last points before that round, as the server counts them.
function reasons() {
  if (shown === null || !rowCount()) return data.reasons;
  const rows = data.rows, all = rowCount(), newest = rows[all - 1];
  const sum = (name, from) => { let s = 0; for (let i = from; i < all; ++i) s += rows[i][column[name]]; return s; };
  const from = Math.max(0, all - 240), seen = sum("seen", from), peers = sum("contributions", from) / seen;
  return {sent_a_round: sum("sent", from) / seen, received_a_round: sum("received", from) / seen,
          dense_a_round: peers > 1 ? 8 * data.reasons.parameters * (peers - 1) / peers : 0,
          seconds: sum("seconds", 0), waited: sum("waited", 0), seconds_recent: sum("seconds", from), computed_recent: sum("computed", from),
          waited_recent: sum("waited", from), contributors: newest[column.contributions],
          agreeing: newest[column.contributions] - newest[column.disagreeing], disagreeing_total: sum("disagreeing", 0),
          replica: "", momentum_energy: null, joules: data.reasons.joules, joules_per_token: data.reasons.joules_per_token};
}

/// States of the peers: those of the newest roster that is shown, moved on by what happened after it.
function statesShown() {
  if (shown === null) return data.states;
  let roster = null;
  for (const one of data.rosters) if (one.round <= shown + 1) roster = one;
  const from = roster ? roster.round : 0;
  const states = new Map((roster ? roster.states : []).map((s) => [s[0], s.slice()]));
  const after = {joined: 0, returned: 0, lost: 3, left: 4};
  for (const mark of data.marks) {
    if (mark.person === null || mark.round < from || mark.round > shown || !(mark.kind in after)) continue;
    const state = states.get(mark.person) || [mark.person, 0, 0, 0, 0, mark.round, 0, null];
    state[1] = after[mark.kind];
    states.set(mark.person, state);
  }
  return [...states.values()];
}

const newest = (list, round) => { let found = null; for (const one of list) { if (round(one) <= until() + 1) found = one; } return found; };

// ------------------------------------------------------------------------------------------------------- the parts

function showStatus() {
  const pill = byId("status");
  let is = "live", text = "live";
  if (connection === "lost") { is = "lost"; text = "connection lost, trying again"; }
  else if (!data || data.loading) { is = "wait"; text = data ? "reading the run" : "connecting"; }
  else if (shown !== null) { is = "done"; text = "replay"; }
  else if (data.ended) { is = "done"; text = data.progress.round >= data.progress.rounds ? "finished" : "stopped"; }
  else if (!data.reached) { is = "lost"; text = "the peer does not answer"; }
  else if (data.paused) { is = "wait"; text = "paused"; }
  else if (!data.phase) { is = "wait"; text = "not running"; }
  if (pill.dataset.is !== is) pill.dataset.is = is;
  say("status", text);
  document.title = data ? "thinwire · " + Math.floor(100 * figures().part) + " %" : "thinwire";
}

function showFigures() {
  const f = figures();
  say("run", data.run || "");
  const percent = 100 * Math.min(1, f.part);
  say("percent", percent >= 99.95 || percent === 0 ? percent.toFixed(0) : percent.toFixed(1));
  say("how-far", "round " + f.round.toLocaleString("en") + (f.rounds ? " of " + f.rounds.toLocaleString("en") : "") + " · " + short(f.tokens) + " of about " +
    short(Math.max(f.tokens, f.tokens_total || 0)) + " tokens");
  part(byId("bar"), f.part);
  byId("bar").setAttribute("aria-valuenow", percent.toFixed(1));
  if (f.left_seconds !== undefined) {
    say("left", duration(f.left_seconds));
    const low = duration(f.left_low), high = duration(f.left_high);
    say("left-range", low === high ? "and steady" : low + " to " + high);
  } else {
    const done = data.ended && shown === null && data.progress.round >= data.progress.rounds;
    say("left", done ? "done" : "–");
    say("left-range", done ? duration(data.reasons.seconds) + " of training" : "");
  }
  say("speed", short(f.tokens_per_second));
  say("speed-run", short(f.tokens_per_second_run) + " over the run");
  const rows = data.rows;
  let now = null;
  for (let i = rowCount() - 1; i >= 0 && now === null; --i) now = rows[i][column.loss];
  const first = data.progress.first_loss;
  say("loss", loss(now));
  say("loss-note", now === null || first === undefined || first === null ? "" : "began at " + loss(first));
  const evaluation = newest(data.evaluations, (e) => e[0]);
  say("validation", evaluation ? loss(evaluation[1]) : "–");
  say("validation-note", evaluation ? "after round " + evaluation[0].toLocaleString("en") : "not evaluated yet");
  const states = statesShown();
  const here = states.filter((s) => s[1] < 3).length;
  say("here", String(here));
  say("here-note", states.length > here ? "of " + states.length + " that took part" : "all that took part");
}

/// The newest sample, and earlier ones that show how far it came: the first and some between, the newest first.
function showSample() {
  const all = data.samples.filter((s) => s.round <= until() + 1);
  const most = 5, chosen = [];
  for (let i = 0; i < Math.min(most, all.length); ++i) {
    const at = Math.round((all.length - 1) * (1 - i / Math.max(1, Math.min(most, all.length) - 1)));
    if (all[at] !== chosen[chosen.length - 1]) chosen.push(all[at]);
  }
  byId("sample-note").hidden = chosen.length > 0;
  const list = byId("samples");
  const key = chosen.map((s) => s.round).join();
  if (list.dataset.key === key) return;
  list.dataset.key = key;
  list.replaceChildren(...chosen.map((sample) => {
    const item = make("li");
    item.append(make("p", (sample.round === 0 ? "before the first round" : "after round " + sample.round.toLocaleString("en")) + " · loss " + sample.loss.toFixed(2)),
      make("blockquote", sample.text.trim()));
    return item;
  }));
}

const stateWords = {present: "present", syncing: "catching up", late: "late", lost: "gone", left: "left"};

function showPeers() {
  const body = byId("peers").tBodies[0];
  const states = statesShown();
  while (body.rows.length > states.length) body.deleteRow(-1);
  states.forEach((s, i) => {
    const person = data.people[s[0]];
    if (!person) return;
    let row = body.rows[i];
    if (!row) {
      row = body.insertRow();
      const head = make("th", undefined, {scope: "row"});
      head.append(make("span"), make("small"));
      row.append(head);
      for (let k = 0; k < 6; ++k) row.append(make("td", undefined, {class: k === 0 ? "state" : "n"}));
    }
    const put = (element, text) => { if (element.textContent !== text) element.textContent = text; };
    const state = data.standings[s[1]];
    put(row.cells[0].children[0], person.name);
    put(row.cells[0].children[1], [person.self ? "tells this page" : "", person.witness ? "witness" : "", person.place, person.hardware].filter(Boolean).join(" · "));
    put(row.cells[1], stateWords[state] + (state === "late" ? ", " + count(s[6], "round", "rounds") : ""));
    if (row.cells[1].dataset.is !== state) row.cells[1].dataset.is = state;
    put(row.cells[2], short(s[2]));
    put(row.cells[3], person.self ? "–" : bytes(s[3]));
    put(row.cells[4], person.self ? "–" : bytes(s[4]));
    put(row.cells[5], person.self || s[7] === null ? "–" : s[7] < 10 ? s[7].toFixed(1) + " ms" : s[7].toFixed(0) + " ms");
    put(row.cells[6], person.witness ? "–" : s[5].toLocaleString("en"));
  });
  showMap(states);
}

function showMap(states) {
  const placed = states.filter((s) => data.people[s[0]] && data.people[s[0]].latitude !== null);
  byId("map").hidden = placed.length === 0;
  if (!placed.length) return;
  const world = byId("world");
  if (!world.firstChild) {
    const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
    path.setAttribute("class", "land");
    path.setAttribute("d", land.map((shape) => "M" + shape.trim().split(/\s+/).map((point) => {
      const [x, y] = point.split(",");
      return x + " " + -y;
    }).join("L") + "Z").join(""));
    world.append(path);
  }
  while (world.childNodes.length > placed.length + 1) world.lastChild.remove();
  placed.forEach((s, i) => {
    const person = data.people[s[0]];
    let dot = world.childNodes[i + 1];
    if (!dot) {
      dot = document.createElementNS("http://www.w3.org/2000/svg", "circle");
      dot.setAttribute("class", "at");
      dot.setAttribute("r", "2.6");
      dot.append(document.createElementNS("http://www.w3.org/2000/svg", "title"));
      world.append(dot);
    }
    dot.setAttribute("cx", person.longitude);
    dot.setAttribute("cy", -person.latitude);
    dot.dataset.is = data.standings[s[1]];
    const text = person.name + (person.place ? ", " + person.place : "") + ": " + stateWords[data.standings[s[1]]];
    if (dot.firstChild.textContent !== text) dot.firstChild.textContent = text;
  });
}

function showReasons() {
  const r = reasons();
  const times = r.sent_a_round > 0 ? r.dense_a_round / r.sent_a_round : 0;
  say("thin", times > 1 ? short(times) + " times less" : bytes(r.sent_a_round));
  part(byId("bar-dense"), r.dense_a_round > 0 ? 1 : 0);
  part(byId("bar-sent"), r.dense_a_round > 0 ? Math.max(0.006, r.sent_a_round / r.dense_a_round) : 0);
  say("thin-note", bytes(r.sent_a_round) + " sent and " + bytes(r.received_a_round) + " received a round" +
    (r.dense_a_round > 0 ? "; a ring of dense float32 gradients sends " + bytes(r.dense_a_round) : ""));
  const share = (seconds) => Math.min(1, seconds / r.seconds_recent), percents = (seconds) => Math.round(100 * share(seconds)) + " %";
  const known = r.seconds_recent > 0;
  say("waiting", known ? percents(r.waited_recent) + " waiting" : "–");
  part(byId("bar-wait"), known ? share(r.waited_recent) : 0);
  say("waiting-note", !known ? "" : (r.computed_recent > 0 ? percents(r.computed_recent) + " computing; the rest is the run's own pace, evaluations and saving. " : "") +
    duration(r.waited) + " of " + duration(r.seconds) + " went into waiting for others");
  say("agree", r.contributors ? r.agreeing + " of " + r.contributors + " agree" : "–");
  say("agree-note", (r.replica ? "weights " + r.replica + "… after round " + r.replica_round.toLocaleString("en") + "; " : "") +
    (r.disagreeing_total ? count(r.disagreeing_total, "contribution", "contributions") + " of other weights so far" : "no contribution of other weights so far"));
  const back = data.marks.filter((m) => m.kind === "returned" && m.round <= until());
  const lost = data.marks.filter((m) => m.kind === "lost" && m.round <= until());
  say("recovered", lost.length || back.length ? back.length + " of " + Math.max(lost.length, back.length) + " came back" : "no peer was lost");
  say("recovered-note", (back.length ? "away for " + back.slice(-3).map((m) => duration(m.seconds)).join(", ") + ". " : "") +
    "What a lost peer had not sent stays in its momentum" + (r.momentum_energy === null || r.momentum_energy === undefined ? "." : ", of mean square " + r.momentum_energy.toExponential(1) + " here."));
  const pauses = data.marks.filter((m) => m.kind === "resumed" && m.round <= until());
  const paused = pauses.length ? "Paused " + (pauses.length === 1 ? "once" : pauses.length + " times") + ", " + duration(pauses.reduce((all, m) => all + m.seconds, 0)) + " in all. " : "";
  say("cost", r.joules_per_token === null ? "not reported" : amount(r.joules_per_token, "J") + " a token");
  say("cost-note", paused + (r.joules === null ? "The peer's machine does not tell what energy it uses." :
    amount(r.joules, "J") + " by the machine of this peer so far, everything that runs on it included"));
}

function showEvents() {
  const list = byId("events");
  const most = 60;
  const marks = data.marks.filter((m) => m.round <= until()).slice(-most).reverse();
  byId("events-none").hidden = marks.length > 0;
  const key = marks.map((m) => m.round + m.kind + m.person).join();
  if (list.dataset.key === key) return;
  list.dataset.key = key;
  list.replaceChildren(...marks.map((mark) => {
    const item = make("li");
    const date = new Date(mark.time * 1000);
    const time = make("time", "round " + mark.round.toLocaleString("en"));
    if (mark.time > 0 && mark.time < 1e11) { time.dateTime = date.toISOString(); time.title = date.toLocaleString(); }
    item.append(time, make("span", sentence(mark)));
    return item;
  }));
}

function showNumbers() {
  const table = byId("numbers");
  if (!table.closest("details").open) return;
  const body = table.tBodies[0];
  const all = rowCount(), most = 40, step = Math.max(1, Math.ceil(all / most));
  const rows = [];
  for (let from = 0; from < all; from += step) {
    const to = Math.min(all, from + step) - 1;
    let sum = 0, seen = 0, low = Infinity, high = -Infinity;
    for (let i = from; i <= to; ++i) {
      const row = data.rows[i];
      if (row[column.loss] === null) continue;
      sum += row[column.loss] * row[column.seen];
      seen += row[column.seen];
      low = Math.min(low, row[column.low]);
      high = Math.max(high, row[column.high]);
    }
    rows.push([data.rows[from][column.first] + "–" + data.rows[to][column.last], short(ends[to]), seen ? loss(sum / seen) : "–", seen ? loss(low) : "–", seen ? loss(high) : "–"]);
  }
  body.replaceChildren(...rows.map((row) => {
    const line = make("tr");
    line.append(...row.map((text) => make("td", text)));
    return line;
  }));
}

// ------------------------------------------------------------------------------------------------------- the curve

const canvas = byId("chart");
const context = canvas.getContext("2d");
const margin = {left: 50, right: 16, top: 10, bottom: 44};
let size = {width: 0, height: 0, ratio: 0};
let pointer = null, drag = null;
let colours = {};

function readColours() {
  const style = getComputedStyle(root);
  for (const name of ["text", "muted", "line", "train", "band", "valid", "good", "warn", "bad", "card"]) colours[name] = style.getPropertyValue("--" + name).trim();
  colours.font = Math.round(parseFloat(style.fontSize) * 0.8) + "px " + style.fontFamily;
}

const wholeRange = () => [0, Math.max(1, shown === null ? (ends.length ? ends[ends.length - 1] : 1) : tokensBefore(shown + 1))];
function range() {
  const all = wholeRange();
  if (!view) return all;
  const width = Math.min(view[1] - view[0], all[1]);
  const from = Math.max(0, Math.min(view[0], all[1] - width));
  return [from, from + width];
}
function zoom(factor, at) {
  const [from, to] = range(), all = wholeRange();
  const least = all[1] / Math.max(64, data.rows.length * 4);
  const width = Math.max(least, (to - from) * factor);
  if (width >= all[1]) { view = null; return draw(); }
  const middle = at === undefined ? (from + to) / 2 : at;
  const start = middle - (middle - from) * width / (to - from);
  view = [start, start + width];
  draw();
}
function pan(part) {
  const [from, to] = range(), all = wholeRange();
  const by = Math.max(-from, Math.min(all[1] - to, part * (to - from)));
  if (view) view = [from + by, to + by];
  draw();
}

function ticks(from, to, most) {
  const rough = (to - from) / most;
  const power = Math.pow(10, Math.floor(Math.log10(rough)));
  const step = [1, 2, 2.5, 5, 10].map((m) => m * power).find((s) => s >= rough);
  const found = [];
  for (let i = Math.ceil(from / step); i * step <= to + step * 1e-6; ++i) found.push(i * step);
  return found;
}

const xOf = (tokens, [from, to]) => margin.left + (tokens - from) / (to - from) * (size.width - margin.left - margin.right);
const tokensAt = (x, [from, to]) => from + (x - margin.left) / (size.width - margin.left - margin.right) * (to - from);

/// The first row whose point is not left of a number of tokens.
function firstPlace(tokens) {
  let low = 0, high = rowCount();
  while (low < high) {
    const middle = (low + high) >> 1;
    if (places[middle] < tokens) low = middle + 1; else high = middle;
  }
  return low;
}

/// The points that are seen, at most one for each pixel: [x, mean, low, high].
function points(across, first, last) {
  const found = [];
  let pixel = null, x = 0, sum = 0, seen = 0, low = Infinity, high = -Infinity;
  const flush = () => { if (seen) found.push([x / seen, sum / seen, low, high]); };
  for (let i = first; i < last; ++i) {
    const row = data.rows[i];
    if (row[column.loss] === null) continue;
    const at = xOf(places[i], across);
    if (Math.round(at) !== pixel) {
      flush();
      pixel = Math.round(at);
      x = sum = seen = 0;
      low = Infinity;
      high = -Infinity;
    }
    const weight = row[column.seen];
    x += at * weight;
    sum += row[column.loss] * weight;
    seen += weight;
    low = Math.min(low, row[column.low]);
    high = Math.max(high, row[column.high]);
  }
  flush();
  return found;
}

/// Means over neighbours, as many as leave the shape and take the noise.
function smooth(list) {
  const reach = Math.min(14, Math.floor(list.length / 50));
  if (reach < 1) return list.map((p) => p[1]);
  const sums = [0];
  for (const p of list) sums.push(sums[sums.length - 1] + p[1]);
  return list.map((_, i) => {
    const before = Math.min(reach, i), after = Math.min(before, list.length - 1 - i);
    return (sums[i + after + 1] - sums[i - before]) / (before + after + 1);
  });
}

function shapeOf(kind, x, y, r) {
  context.beginPath();
  if (kind === "lost") { context.moveTo(x - r, y - r); context.lineTo(x + r, y + r); context.moveTo(x + r, y - r); context.lineTo(x - r, y + r); context.stroke(); return; }
  const up = kind === "joined" || kind === "returned" ? -1 : 1;
  if (kind === "paused" || kind === "resumed") {
    if (kind === "paused") { context.rect(x - r * 0.8, y - r, r * 0.55, 2 * r); context.rect(x + r * 0.25, y - r, r * 0.55, 2 * r); }
    else { context.moveTo(x - r * 0.7, y - r); context.lineTo(x + r, y); context.lineTo(x - r * 0.7, y + r); }
    context.fill();
    return;
  }
  if (kind === "takeover") { context.moveTo(x, y - r); context.lineTo(x + r, y); context.lineTo(x, y + r); context.lineTo(x - r, y); }
  else { context.moveTo(x - r, y - up * r * 0.8); context.lineTo(x + r, y - up * r * 0.8); context.lineTo(x, y + up * r); }
  context.closePath();
  context.fill();
}
const markColour = (kind) => kind === "lost" ? colours.bad : kind === "joined" || kind === "returned" ? colours.good : colours.muted;

function fit() {
  const box = canvas.getBoundingClientRect();
  const ratio = Math.min(3, window.devicePixelRatio || 1);
  if (size.width === box.width && size.height === box.height && size.ratio === ratio) return;
  size = {width: box.width, height: box.height, ratio};
  canvas.width = Math.round(box.width * ratio);
  canvas.height = Math.round(box.height * ratio);
}

function drawNow() {
  fit();
  if (!colours.font) readColours();
  context.setTransform(size.ratio, 0, 0, size.ratio, 0, 0);
  context.clearRect(0, 0, size.width, size.height);
  context.font = colours.font;
  const em = parseFloat(colours.font);
  const pen = em / 12;
  margin.left = Math.round(em * 3.6);
  margin.bottom = Math.round(em * 3.4);
  if (!data || !data.rows.length) return;
  const across = range();
  const first = Math.max(0, firstPlace(across[0]) - 1), last = Math.min(rowCount(), firstPlace(across[1]) + 1);
  const list = points(across, first, last);
  const line = smooth(list);
  const evaluations = data.evaluations.filter((e) => e[0] <= until() + 1).map((e) => [xOf(tokensBefore(e[0]), across), e[1]]);
  const right = size.width - margin.right, bottom = size.height - margin.bottom;
  let low = Infinity, high = -Infinity;
  const cover = (value) => { low = Math.min(low, value); high = Math.max(high, value); };
  list.forEach((p) => cover(p[1]));
  evaluations.forEach((e) => { if (e[0] >= margin.left - 1 && e[0] <= right + 1) cover(e[1]); });
  if (!isFinite(low)) { low = 0; high = 1; }
  // The fall at the beginning leaves the rest of a long run at least two fifths of the height.
  let later = low;
  for (const p of [...list, ...evaluations]) if (p[0] > margin.left + 0.04 * (right - margin.left) && p[0] <= right + 1) later = Math.max(later, p[1]);
  if (later > low) high = Math.min(high, low + 2.5 * (later - low));
  const pad = Math.max(1e-6, (high - low) * 0.07);
  low -= pad;
  high += pad;
  const yOf = (value) => bottom - (value - low) / (high - low) * (bottom - margin.top);

  context.lineWidth = 1;
  context.strokeStyle = colours.line;
  context.fillStyle = colours.muted;
  context.textBaseline = "middle";
  context.textAlign = "right";
  for (const value of ticks(low, high, Math.max(3, Math.floor((bottom - margin.top) / (em * 4))))) {
    const y = Math.round(yOf(value)) + 0.5;
    context.beginPath();
    context.moveTo(margin.left, y);
    context.lineTo(right, y);
    context.stroke();
    context.fillText(String(+value.toPrecision(4)), margin.left - 8, y);
  }
  context.textBaseline = "bottom";
  context.textAlign = "center";
  for (const value of ticks(across[0], across[1], Math.max(2, Math.floor(size.width / (em * 9))))) {
    const x = xOf(value, across);
    if (x > right - em * 1.2 || x < margin.left + em) continue;
    context.fillText(short(value), x, size.height - 2);
  }
  context.textAlign = "left";
  context.fillText("tokens", margin.left - em * 3.2, size.height - 2);

  context.save();
  context.beginPath();
  context.rect(margin.left - em * 0.5, 0, right - margin.left + em, size.height);
  context.clip();
  const lane = bottom + em * 0.95;
  const marks = data.marks.filter((m) => m.round <= until());
  for (const mark of marks) {
    const x = xOf(tokensBefore(mark.round), across);
    if (x < margin.left - 8 || x > right + 8) continue;
    context.strokeStyle = context.fillStyle = markColour(mark.kind);
    context.globalAlpha = 0.4;
    context.setLineDash([3, 4]);
    context.lineWidth = 1;
    context.beginPath();
    context.moveTo(x, margin.top);
    context.lineTo(x, bottom);
    context.stroke();
    context.globalAlpha = 1;
    context.setLineDash([]);
    context.lineWidth = 2;
    shapeOf(mark.kind, x, lane, em * 0.36);
  }
  context.beginPath();
  context.rect(margin.left, margin.top - 4, right - margin.left, bottom - margin.top + 4);
  context.clip();
  if (list.length) {
    context.fillStyle = colours.band;
    context.beginPath();
    list.forEach((p, i) => context[i ? "lineTo" : "moveTo"](p[0], yOf(p[3])));
    for (let i = list.length - 1; i >= 0; --i) context.lineTo(list[i][0], yOf(list[i][2]));
    context.closePath();
    context.fill();
    context.strokeStyle = colours.train;
    context.lineJoin = "round";
    context.lineWidth = 1;
    context.globalAlpha = 0.32;
    context.beginPath();
    list.forEach((p, i) => context[i ? "lineTo" : "moveTo"](p[0], yOf(p[1])));
    context.stroke();
    context.globalAlpha = 1;
    context.lineWidth = 2.2 * pen;
    context.beginPath();
    list.forEach((p, i) => context[i ? "lineTo" : "moveTo"](p[0], yOf(line[i])));
    context.stroke();
  }
  context.strokeStyle = colours.valid;
  context.lineWidth = 1.6 * pen;
  context.beginPath();
  evaluations.forEach((e, i) => context[i ? "lineTo" : "moveTo"](e[0], yOf(e[1])));
  context.stroke();
  context.lineWidth = 2;
  context.fillStyle = colours.valid;
  context.strokeStyle = colours.card;
  for (const e of evaluations) {
    context.beginPath();
    context.arc(e[0], yOf(e[1]), em * 0.34, 0, 7);
    context.fill();
    if (evaluations.length < 80) context.stroke();
  }
  if (drag) {
    context.fillStyle = colours.band;
    context.fillRect(Math.min(drag.from, drag.to), margin.top, Math.abs(drag.to - drag.from), bottom - margin.top);
  } else if (pointer !== null) {
    context.strokeStyle = colours.muted;
    context.lineWidth = 1;
    context.beginPath();
    context.moveTo(Math.round(pointer) + 0.5, margin.top);
    context.lineTo(Math.round(pointer) + 0.5, bottom);
    context.stroke();
  }
  context.restore();
  showTip(across, marks);
}

function showTip(across, marks) {
  const tip = byId("tip");
  if (pointer === null || drag) { tip.hidden = true; return; }
  const i = Math.max(0, Math.min(rowCount() - 1, firstPlace(tokensAt(pointer, across))));
  const row = data.rows[i];
  if (!row) { tip.hidden = true; return; }
  const one = row[column.first] === row[column.last] || row[column.seen] === 1;
  const lines = [one ? "Round " + row[column.last].toLocaleString("en") : "Rounds " + row[column.first].toLocaleString("en") + " to " + row[column.last].toLocaleString("en"),
    short(places[i]) + " tokens",
    "Training " + loss(row[column.loss]) + (row[column.loss] !== null && row[column.low] !== row[column.high] ? " (" + loss(row[column.low]) + " to " + loss(row[column.high]) + ")" : "")];
  const near = data.evaluations.filter((e) => e[0] <= until() + 1 && Math.abs(xOf(tokensBefore(e[0]), across) - pointer) < 9).pop();
  if (near) lines.push("Validation " + loss(near[1]));
  for (const mark of marks.filter((m) => Math.abs(xOf(tokensBefore(m.round), across) - pointer) < 9).slice(-4)) lines.push(sentence(mark));
  tip.textContent = lines.join("\n");
  tip.hidden = false;
  const left = pointer + 14 + tip.offsetWidth > size.width ? pointer - tip.offsetWidth - 14 : pointer + 14;
  tip.style.left = Math.max(0, left) + "px";
}

let drawing = 0;
function draw() {
  if (!drawing) drawing = requestAnimationFrame(() => { drawing = 0; drawNow(); });
}

function describeCurve() {
  const with_loss = data.rows.slice(0, rowCount()).filter((r) => r[column.loss] !== null);
  const evaluation = newest(data.evaluations, (e) => e[0]);
  const text = with_loss.length === 0 ? "Loss over tokens: nothing yet"
    : "Loss over tokens: training from " + with_loss[0][column.loss].toFixed(2) + " to " + with_loss[with_loss.length - 1][column.loss].toFixed(2) +
      (evaluation ? ", validation now " + evaluation[1].toFixed(2) : "") + ", " + count(data.marks.length, "event", "events") + " marked";
  for (const key of document.querySelectorAll(".mark")) {
    const kinds = key.dataset.of.split(" ");
    key.hidden = !data.marks.some((m) => kinds.includes(m.kind) && m.round <= until());
  }
  if (canvas.getAttribute("aria-label") !== text) canvas.setAttribute("aria-label", text);
}

// ------------------------------------------------------------------------------------------------------- all of it

function show() {
  showStatus();
  if (!data) return;
  showTime();
  showFigures();
  showSample();
  showPeers();
  showReasons();
  showEvents();
  showNumbers();
  describeCurve();
  say("updated", data.time ? "Newest: " + new Date(data.time * 1000).toLocaleString() : "");
  draw();
}
let showing = 0;
function showSoon() {
  if (!showing) showing = requestAnimationFrame(() => { showing = 0; show(); });
}

// ------------------------------------------------------------------------------------------------------- the time

const slider = byId("time");
let playing = 0;
function showTime() {
  const last = lastRound();
  slider.max = last;
  if (data.rows.length) slider.min = Math.min(last, data.rows[0][column.seen] > 1 || data.rows[0][column.first] === 0 ? 0 : data.rows[0][column.first]);
  if (shown === null) slider.value = last;
  const text = shown === null ? (data.ended ? "at the end" : "now") : "round " + shown.toLocaleString("en");
  say("time-text", text);
  slider.setAttribute("aria-valuetext", text);
}
function goTo(round) {
  const was = shown;
  shown = round >= lastRound() ? null : Math.max(0, Math.round(round));
  if (was === null && shown !== null && !data.ended) fetchSnapshot();  // events do not bring who was there when
  if (shown !== null) slider.value = shown;
  showSoon();
}
function stopPlaying() {
  cancelAnimationFrame(playing);
  playing = 0;
  byId("play").setAttribute("aria-pressed", "false");
  say("play", "Replay");
}
byId("play").addEventListener("click", () => {
  if (playing) return stopPlaying();
  if (!data || !data.rows.length) return;
  byId("play").setAttribute("aria-pressed", "true");
  say("play", "Stop");
  const length = 20000;  // milliseconds for the whole run
  const from = shown === null ? +slider.min : shown;
  const began = performance.now();
  const steps = matchMedia("(prefers-reduced-motion: reduce)").matches ? 1000 : 0;
  let last = -Infinity;
  const frame = (now) => {
    const round = from + (now - began) / length * (lastRound() - +slider.min);
    if (now - last >= steps) { last = now; goTo(round); }
    if (round >= lastRound()) { goTo(lastRound()); return stopPlaying(); }
    playing = requestAnimationFrame(frame);
  };
  playing = requestAnimationFrame(frame);
});
slider.addEventListener("input", () => { stopPlaying(); if (data) goTo(+slider.value); });

// ------------------------------------------------------------------------------------------------------- hands

const inside = (event) => event.clientX - canvas.getBoundingClientRect().left;
canvas.addEventListener("pointermove", (event) => {
  pointer = Math.max(margin.left, Math.min(size.width - margin.right, inside(event)));
  if (drag) drag.to = pointer;
  draw();
});
canvas.addEventListener("pointerleave", () => { pointer = null; draw(); });
canvas.addEventListener("pointerdown", (event) => {
  if (event.button !== 0) return;
  canvas.setPointerCapture(event.pointerId);
  canvas.focus({preventScroll: true});
  drag = {from: inside(event), to: inside(event)};
});
canvas.addEventListener("pointerup", () => {
  if (!drag) return;
  const [from, to] = [Math.min(drag.from, drag.to), Math.max(drag.from, drag.to)];
  drag = null;
  if (to - from > 6 && data) {
    const across = range();
    view = [Math.max(0, tokensAt(from, across)), tokensAt(to, across)];
  }
  draw();
});
canvas.addEventListener("pointercancel", () => { drag = null; draw(); });
canvas.addEventListener("dblclick", () => { view = null; draw(); });
canvas.addEventListener("wheel", (event) => {
  if (!data || (document.activeElement !== canvas && !event.ctrlKey)) return;  // else the page scrolls
  event.preventDefault();
  if (Math.abs(event.deltaX) > Math.abs(event.deltaY)) pan(event.deltaX / size.width);
  else zoom(Math.pow(1.0015, event.deltaY), tokensAt(inside(event), range()));
}, {passive: false});
const showEnd = () => { const all = wholeRange(); view = [all[1] * 0.9, all[1]]; draw(); };
canvas.addEventListener("keydown", (event) => {
  if (!data || event.ctrlKey || event.metaKey || event.altKey) return;
  const act = {"+": () => zoom(0.7), "=": () => zoom(0.7), "-": () => zoom(1 / 0.7), "ArrowLeft": () => pan(-0.2), "ArrowRight": () => pan(0.2),
    "0": () => { view = null; draw(); }, "Home": () => { view = null; draw(); }, "End": showEnd}[event.key];
  if (!act) return;
  event.preventDefault();
  act();
});
byId("zoom-in").addEventListener("click", () => { if (data) zoom(0.6); });
byId("zoom-out").addEventListener("click", () => { if (data) zoom(1 / 0.6); });
byId("zoom-all").addEventListener("click", () => { view = null; draw(); });
byId("zoom-end").addEventListener("click", () => { if (data) showEnd(); });
document.querySelector("details").addEventListener("toggle", () => { if (data) showNumbers(); });
new ResizeObserver(() => { colours = {}; draw(); }).observe(canvas);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { colours = {}; draw(); });

// ------------------------------------------------------------------------------------------------------- the wire

let source = null;
let waiting = [];      // events that came while the snapshot was on its way
let fetching = false;

async function fetchSnapshot() {
  if (fetching) return;
  fetching = true;
  try {
    const answer = await fetch("snapshot", {cache: "no-store"});
    if (!answer.ok) throw new Error("status " + answer.status);
    takeSnapshot(await answer.json());
    connection = "open";
  } catch {
    connection = "lost";
    setTimeout(fetchSnapshot, 2000 + 2000 * Math.random());
  }
  fetching = false;
  const held = waiting;
  waiting = [];
  held.forEach(take);
  showSoon();
}

function take([id, update]) {
  if (id <= lastId) return;
  if (!data || fetching) { waiting.push([id, update]); return; }
  lastId = id;
  takeUpdate(update);
  if (data.rows.length > mostRows) fetchSnapshot();
  showSoon();
}

function connect() {
  source = new EventSource("events");
  source.onopen = () => {
    if (connection === "lost") announce("The connection is back.");
    connection = "open";
    showSoon();
  };
  source.onmessage = (event) => {
    const update = JSON.parse(event.data);
    if (update.reset) { lastId = 0; waiting = []; fetchSnapshot(); }
    else take([Number(event.lastEventId), update]);
  };
  source.onerror = () => {
    if (connection !== "lost") announce("The connection is lost; what is shown may be old.");
    connection = "lost";
    showSoon();
    if (source.readyState !== EventSource.CLOSED) return;  // it tries again by itself
    // Refused, as when all places are taken: now and then a look at all of it, until there is one.
    fetchSnapshot();
    setTimeout(connect, 5000 + 10000 * Math.random());
  };
}

// Outlines of the land, by hand: longitude, latitude.
const land = [
  "-168,66 -162,70 -156,71 -141,70 -128,70 -115,68 -108,68 -96,68 -94,72 -88,69 -82,69 -86,66 -94,61 -93,58 -85,55 -82,52 -79,51 -79,55 -78,58 -77,62 -72,62 -69,59 -65,58 -62,57 -57,53 -60,50 -66,50 -70,47 -65,49 -64,46 -61,46 -66,44 -70,43 -70,41 -74,40 -76,37 -76,35 -81,31 -80,26 -81,25 -83,29 -85,30 -90,29 -94,29 -97,27 -97,22 -95,19 -91,19 -90,21 -87,21 -88,16 -84,16 -83,11 -80,9 -77,9 -78,7 -81,7 -84,9 -86,12 -92,14 -96,16 -102,18 -106,21 -109,26 -113,31 -114,31 -110,24 -112,26 -115,30 -118,34 -121,36 -124,40 -124,46 -123,49 -128,51 -131,55 -136,59 -141,60 -148,60 -152,59 -158,56 -163,55 -158,58 -162,59 -165,61 -164,63 -161,64 -166,65",
  "-55,82 -44,83 -32,83 -22,82 -18,78 -20,73 -24,70 -32,68 -40,65 -43,60 -49,61 -52,65 -53,69 -56,73 -61,76 -69,77 -72,79 -64,81",
  "-90,74 -80,74 -74,72 -68,69 -63,66 -66,63 -72,64 -76,66 -74,68 -80,70 -88,71", "-117,73 -107,73 -105,69 -113,68 -117,70", "-92,82 -78,83 -66,83 -76,79 -86,77 -94,79",
  "-77,9 -72,12 -70,12 -62,11 -57,6 -51,4 -50,0 -44,-3 -39,-4 -35,-6 -35,-9 -39,-13 -39,-18 -41,-22 -45,-23 -48,-26 -49,-29 -53,-34 -57,-35 -57,-38 -62,-39 -65,-42 -66,-46 -69,-50 -68,-53 -72,-54 -75,-51 -75,-46 -73,-41 -73,-37 -71,-30 -70,-20 -76,-14 -79,-8 -81,-5 -80,-2 -80,1 -77,4",
  "-6,36 -2,35 5,37 10,37 11,34 15,32 20,31 23,33 29,31 34,31 35,28 37,22 39,16 43,12 44,11 51,12 48,5 42,-1 39,-6 41,-14 36,-19 35,-24 33,-26 32,-29 27,-34 20,-35 18,-33 15,-27 12,-18 14,-11 12,-5 9,-1 9,4 5,5 1,6 -4,5 -8,4 -13,8 -17,12 -17,15 -16,20 -17,22 -13,28 -10,31",
  "-9,43 -9,37 -6,36 -2,37 0,39 3,42 7,43 10,44 12,42 16,38 17,40 13,44 14,45 19,42 20,40 23,36 24,40 27,41 26,38 28,36 31,37 36,36 35,32 34,31 35,28 39,21 43,13 45,13 52,16 55,18 60,22 57,24 56,26 51,24 48,30 51,28 57,27 61,25 67,25 70,21 73,17 76,9 78,8 80,14 82,17 87,21 91,22 94,17 95,16 98,14 98,9 101,4 103,1 104,2 103,6 100,10 101,13 105,9 109,12 108,16 106,20 110,21 114,22 119,25 122,30 120,35 122,37 118,39 121,41 125,40 126,35 129,36 128,39 131,43 135,44 140,49 141,53 136,54 138,56 143,59 151,59 157,62 160,61 156,57 157,51 162,55 164,60 170,60 178,63 180,65 180,69 171,70 160,70 150,72 140,73 130,71 122,73 113,74 105,77 98,76 87,75 80,72 73,73 73,68 68,69 60,69 54,69 46,67 44,66 40,65 41,67 33,67 32,70 26,71 20,70 14,67 11,64 5,62 6,58 9,59 12,56 15,56 18,60 17,62 22,66 25,65 22,62 23,60 29,60 24,58 21,57 21,55 18,55 11,54 10,57 8,56 8,54 5,53 3,51 -1,49 -4,48 -1,46 -2,43",
  "-5,50 1,51 2,53 -1,55 -2,57 -3,59 -6,58 -5,56 -3,54 -5,52", "-10,52 -6,52 -6,55 -8,55 -10,54", "-22,64 -18,63 -14,65 -16,66 -22,66", "12,78 18,77 25,79 20,80 12,80", "52,71 57,71 60,75 68,77 62,76 55,74",
  "131,31 132,34 136,34 140,36 142,40 140,42 145,43 142,45 140,42 140,39 136,36 131,34", "142,46 144,49 143,54 142,51", "120,23 122,25 121,22", "109,19 111,20 110,18",
  "120,14 122,18 122,14 126,9 126,6 122,7 122,10", "95,5 104,-3 106,-6 102,-4 97,2", "105,-6 114,-7 115,-8 106,-7", "109,1 111,2 117,7 119,5 118,1 116,-4 110,-3", "119,1 125,1 121,-1 123,-5 120,-5", "131,-1 141,-3 148,-6 150,-10 143,-9 138,-8",
  "114,-22 122,-18 126,-14 130,-15 132,-11 137,-12 136,-15 140,-17 142,-11 146,-19 153,-26 152,-32 150,-38 144,-38 140,-38 138,-35 135,-35 131,-31 124,-33 118,-35 115,-34 116,-31", "145,-41 148,-41 147,-43", "173,-35 178,-38 175,-41 174,-39", "173,-41 174,-42 169,-47 167,-45", "44,-25 47,-25 50,-16 49,-12 44,-17", "80,10 82,7 80,6", "-84,22 -79,23 -74,20 -78,20", "-74,20 -68,19 -72,18", "33,35 34,35 33,34", "-59,48 -53,47 -56,52",
];

connect();
showSoon();
})();
