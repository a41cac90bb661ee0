
"use strict";
// Everything that comes from the gateway is put in as text: names of models and keys are whatever somebody wrote.
// The key stays in this variable, and is gone with the page.

const WORDS = {
  en: {
    title: "Operators", door: "Operators' page", key: "Admin key (GATEWAY_ADMIN_KEY)", open: "Open", lock: "Lock",
    memory: "The key stays in this page's memory and is forgotten when it is closed or reloaded.",
    wrong_key: "This key is not the admin key.", unreachable: "The gateway cannot be reached.",
    lost: "No answer: what you see is old", not_open: "The gateway answered with status {status}.",
    this_process: "this process", all_processes: "all processes through Redis",
    up: "version {version} · up {time} · {scope}",
    requests: "Requests", per_second: "/s", in_flight_note: "{count} in flight",
    failed: "Failed", failed_note: "{count} of {total}", refused: "Refused", refused_note: "4xx and limits, last minute",
    first_byte: "First byte, streams", answer: "Plain answers", quantiles: "p95 {p95} · p99 {p99}",
    tokens: "Tokens", tokens_note: "{prompt} in · {completion} out", in_flight: "In flight",
    left_note: "{count} left by their callers",
    requests_chart: "Requests per second", tokens_chart: "Tokens per second",
    answered: "answered", legend_refused: "refused", legend_failed: "failed", prompt: "in", completion: "out",
    nothing_yet: "No traffic in the last five minutes", five_minutes: "5 min ago", right_now: "now",
    upstreams: "Upstreams", name: "Name", state: "State", attempts: "Attempts / min", failed_share: "Failed",
    first_token: "First token", last_error: "Last error", isolate: "Isolate", restore: "Restore", sure: "Isolate now?",
    unheard: "{name}: the gateway did not do it ({why}).",
    s_closed: "closed", s_open: "open", s_half_open: "half-open", s_isolated: "isolated", s_cooling: "cooling",
    s_failing: "failing its checks", s_starting: "starting", s_ramp: "closed, {share} of traffic", wait: "{state}, {time}",
    keys: "Keys and tokens", keys_count: "{first}–{last} of {total}", caller: "Caller", models: "Models",
    requests_per_minute: "Requests / min", tokens_per_minute: "Tokens / min", concurrency: "At once", lately: "Last minute", asked: "{requests} · {tokens} tokens",
    unlimited: "unlimited", all: "all", tokens_of: "tokens of {subject}", other_tokens: "all other tokens",
    s_active: "active", s_disabled: "disabled", s_expired: "expired", until: "until {time}",
    per_caller: "{limit} each", unknown_use: "? of {limit}", used: "{used} of {limit}", share: "this process alone",
    errors: "Recent errors", errors_note: "equal ones are one line; the newest request of each is shown",
    last_at: "Last", count: "Count", error: "Error", model: "Model", tried: "Tried", took: "Took",
    request_id: "Request", no_errors: "No errors since the start", no_keys: "No keys", nobody: "not known", none: "–",
    no_attempt: "none", ms: " ms", s: " s", min: " min", h: " h", d: " d",
  },
  ko: {
    title: "운영", door: "운영 페이지", key: "관리 키 (GATEWAY_ADMIN_KEY)", open: "열기", lock: "잠그기",
    memory: "키는 이 페이지의 메모리에만 있으며, 페이지를 닫거나 새로 고치면 사라집니다.",
    wrong_key: "관리 키가 아닙니다.", unreachable: "게이트웨이에 연결할 수 없습니다.",
    lost: "응답 없음: 이전 값을 표시하고 있습니다", not_open: "게이트웨이가 상태 {status}로 응답했습니다.",
    this_process: "이 프로세스", all_processes: "Redis를 공유하는 모든 프로세스",
    up: "버전 {version} · 가동 {time} · {scope}",
    requests: "요청", per_second: "/초", in_flight_note: "처리 중 {count}건",
    failed: "실패", failed_note: "{total}건 중 {count}건", refused: "거절", refused_note: "4xx와 한도, 최근 1분",
    first_byte: "첫 바이트, 스트림", answer: "일반 응답", quantiles: "p95 {p95} · p99 {p99}",
    tokens: "토큰", tokens_note: "입력 {prompt} · 출력 {completion}", in_flight: "처리 중",
    left_note: "호출자가 떠난 요청 {count}",
    requests_chart: "초당 요청", tokens_chart: "초당 토큰",
    answered: "응답", legend_refused: "거절", legend_failed: "실패", prompt: "입력", completion: "출력",
    nothing_yet: "최근 5분 동안 트래픽이 없습니다", five_minutes: "5분 전", right_now: "현재",
    upstreams: "업스트림", name: "이름", state: "상태", attempts: "시도 / 분", failed_share: "실패",
    first_token: "첫 토큰", last_error: "마지막 오류", isolate: "격리", restore: "복귀", sure: "지금 격리할까요?",
    unheard: "{name}: 게이트웨이가 처리하지 않았습니다 ({why}).",
    s_closed: "닫힘(정상)", s_open: "열림(차단)", s_half_open: "반열림(확인 중)", s_isolated: "격리됨", s_cooling: "대기",
    s_failing: "상태 검사 실패", s_starting: "시작 중", s_ramp: "닫힘, 트래픽 {share}", wait: "{state}, {time}",
    keys: "키와 토큰", keys_count: "{total}개 중 {first}–{last}", caller: "호출자", models: "모델",
    requests_per_minute: "요청 / 분", tokens_per_minute: "토큰 / 분", concurrency: "동시 요청", lately: "최근 1분", asked: "{requests}건 · 토큰 {tokens}",
    unlimited: "제한 없음", all: "전체", tokens_of: "{subject}의 토큰", other_tokens: "그 밖의 모든 토큰",
    s_active: "사용 중", s_disabled: "사용 중지", s_expired: "만료", until: "{time}까지",
    per_caller: "각각 {limit}", unknown_use: "? / {limit}", used: "{used} / {limit}", share: "이 프로세스만",
    errors: "최근 오류", errors_note: "같은 오류는 한 줄로 묶고, 가장 최근 요청을 보여 줍니다",
    last_at: "마지막", count: "횟수", error: "오류", model: "모델", tried: "시도", took: "시간",
    request_id: "요청", no_errors: "시작한 뒤로 오류가 없습니다", no_keys: "키 없음", nobody: "알 수 없음", none: "–",
    no_attempt: "없음", ms: "ms", s: "초", min: "분", h: "시간", d: "일",
  },
};
const SCOPES = { "this process": "this_process", "all processes through Redis": "all_processes" };
const EVERY_MS = 2000;
const ANSWER_MS = 8000;
const SURE_MS = 4000;

let language = navigator.language.startsWith("ko") ? "ko" : "en";
let key = "";
let visit = 0; // what was asked for before the key was forgotten is not shown
let timer = 0;
let firstKey = 0;
const seen = {}; // the newest answers, for a change of language
const rows = new Map(); // of upstreams, by name: what a person points at stays where it is

const at = (id) => document.getElementById(id);

function say(word, facts = {}) {
  return WORDS[language][word].replace(/\{(\w+)\}/g, (_, name) => facts[name]);
}

function make(tag, { text, ...attributes } = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text !== undefined) element.textContent = text;
  element.append(...children);
  return element;
}

const number = (value, digits = 0) =>
  new Intl.NumberFormat(language, { minimumFractionDigits: digits, maximumFractionDigits: digits }).format(value);
const rate = (value) => number(value, value > 0 && value < 10 ? 1 : 0);
const short = (value) =>
  new Intl.NumberFormat(language, { notation: "compact", maximumFractionDigits: 1 }).format(value);
const percent = (value) =>
  new Intl.NumberFormat(language, { style: "percent", maximumFractionDigits: value > 0 && value < 0.1 ? 1 : 0 })
    .format(value);

function duration(seconds) {
  if (seconds === null || seconds === undefined) return say("none");
  if (seconds > 0 && seconds < 0.0001) return `<${number(0.1, 1)}${say("ms")}`;
  if (seconds < 1) return number(seconds * 1000, seconds < 0.01 ? 1 : 0) + say("ms");
  if (seconds < 60) return number(seconds, seconds < 10 && seconds % 1 ? 1 : 0) + say("s");
  const units = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];
  const largest = units.findIndex(([, size]) => seconds >= size);
  const [[unit, size], [next, nextSize]] = units.slice(largest, largest + 2);
  const rest = Math.floor((seconds % size) / nextSize);
  return Math.floor(seconds / size) + say(unit) + (rest ? ` ${rest}${say(next)}` : "");
}

function clock(unixSeconds) {
  const day = new Date(unixSeconds * 1000);
  const today = day.toDateString() === new Date().toDateString();
  const style = today ? { timeStyle: "medium" } : { dateStyle: "short", timeStyle: "short" };
  return new Intl.DateTimeFormat(language, { ...style, hourCycle: "h23" }).format(day);
}

// Talking to the gateway

class Refused extends Error {
  constructor(status) { super(String(status)); this.status = status; }
}

async function ask(path, method = "GET") {
  const answer = await fetch(`admin/${path}`, {
    method, headers: { Authorization: `Bearer ${key}` }, cache: "no-store", credentials: "omit", redirect: "error",
    referrerPolicy: "no-referrer", signal: AbortSignal.timeout(ANSWER_MS),
  });
  if (!answer.ok) throw new Refused(answer.status);
  return answer.json();
}

const ASKED = { traffic: () => "traffic", upstreams: () => "upstreams", keys: () => `keys?first=${firstKey}`,
  errors: () => "errors" };

async function look() {
  const asking = visit;
  try {
    const names = Object.keys(ASKED);
    const answers = await Promise.all(names.map((name) => ask(ASKED[name]())));
    if (asking !== visit) return;
    names.forEach((name, index) => { seen[name] = answers[index]; });
    enter();
    show();
    stale(false);
  } catch (error) {
    if (asking !== visit) return;
    if (error instanceof Refused && error.status === 401) return leave(say("wrong_key"));
    if (at("desk").hidden) return leave(why(error));
    stale(true);
  }
  if (!document.hidden) timer = setTimeout(look, EVERY_MS);
}

function why(error) {
  return error instanceof Refused ? say("not_open", { status: error.status }) : say("unreachable");
}

function again() {
  clearTimeout(timer);
  visit += 1; // an answer that is on its way would be older than what is wanted
  return look();
}

function enter() {
  at("door").hidden = true;
  at("desk").hidden = at("lock").hidden = false;
  at("key").value = "";
}

function leave(message = "") {
  clearTimeout(timer);
  visit += 1;
  key = "";
  firstKey = 0;
  for (const name of Object.keys(seen)) delete seen[name];
  for (const id of ["tiles", "upstreams", "keys", "errors"]) at(id).replaceChildren();
  for (const plot of document.querySelectorAll(".plot")) plot.replaceChildren();
  rows.clear();
  stale(false);
  at("about").textContent = "";
  at("desk").hidden = at("lock").hidden = true;
  at("door").hidden = false;
  at("refused").textContent = message;
  at("refused").hidden = !message;
  at("key").select();
  at("key").focus();
}

function stale(is) {
  at("lost").hidden = !is;
  at("desk").classList.toggle("stale", is);
}

// What is shown

function show() {
  if (!seen.traffic) return;
  showAbout(seen.traffic);
  showTiles(seen.traffic);
  drawChart(at("requests-chart"), seen.traffic.series, ["answered", "refused", "failed"],
    ["answered", "legend_refused", "legend_failed"]);
  drawChart(at("tokens-chart"), seen.traffic.series, ["prompt_tokens", "completion_tokens"], ["prompt", "completion"]);
  showUpstreams(seen.upstreams, seen.traffic.lately);
  showKeys(seen.keys);
  showErrors(seen.errors);
}

function showAbout({ version, up_s, scope }) {
  at("about").textContent = say("up", { version, time: duration(Math.floor(up_s)), scope: say(SCOPES[scope]) });
}

function showTiles({ in_flight, lately }) {
  const total = lately.answered + lately.refused + lately.failed + lately.left;
  const per = (count) => count / Math.max(lately.seconds, 1);
  const share = total ? lately.failed / total : 0;
  const quantiles = ({ p95, p99 }) => say("quantiles", { p95: duration(p95), p99: duration(p99) });
  at("tiles").replaceChildren(
    tile(say("requests"), rate(per(total)), say("per_second"), say("in_flight_note", { count: number(in_flight) })),
    tile(say("failed"), percent(share), "", say("failed_note", { count: number(lately.failed), total: number(total) }),
      share >= 0.01),
    tile(say("refused"), number(lately.refused), "",
      lately.left ? say("left_note", { count: number(lately.left) }) : say("refused_note")),
    tile(say("first_byte"), duration(lately.first_byte_s.p50), "", quantiles(lately.first_byte_s)),
    tile(say("answer"), duration(lately.answer_s.p50), "", quantiles(lately.answer_s)),
    tile(say("tokens"), rate(per(lately.prompt_tokens + lately.completion_tokens)), say("per_second"),
      say("tokens_note", { prompt: short(lately.prompt_tokens), completion: short(lately.completion_tokens) })),
  );
}

function tile(label, figure, unit, note, alert = false) {
  const shown = make("div", { class: "figure", text: figure });
  if (unit) shown.append(make("span", { class: "unit", text: unit }));
  return make("div", { class: alert ? "tile alert" : "tile" },
    make("div", { class: "label", text: label }), shown, make("div", { class: "note", text: note }));
}

const SPAN_S = 300;
const HEIGHT = 100;

function drawChart(card, series, names, words) {
  card.querySelector(".legend").replaceChildren(...names.map((name, index) => make("span", {},
    make("i", { class: name.replace("_tokens", "") }), say(words[index]))));
  const plot = card.querySelector(".plot");
  const rates = series.map((each) => names.map((name) => each[name] / each.seconds));
  const most = Math.max(0, ...rates.map((each) => each.reduce((sum, value) => sum + value, 0)));
  const ticks = [
    [say("five_minutes"), "left:44px;bottom:0"], [say("right_now"), "right:0;bottom:0"],
  ];
  if (!most) {
    plot.replaceChildren(make("div", { class: "none", text: say("nothing_yet") }), ...ticks.map(placed));
    return;
  }
  const top = roundUp(most);
  const svg = shape("svg", { viewBox: `0 0 ${SPAN_S} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" });
  for (const level of [0, HEIGHT / 2, HEIGHT]) {
    svg.append(shape("line", { class: "grid", x1: 0, x2: SPAN_S, y1: level, y2: level }));
  }
  series.forEach((each, index) => {
    const right = SPAN_S - each.age_s;
    let bottom = HEIGHT;
    rates[index].forEach((value, nth) => {
      const height = (value / top) * HEIGHT;
      if (!height) return;
      bottom -= height;
      svg.append(shape("rect", {
        class: names[nth].replace("_tokens", ""), x: right - each.seconds, y: bottom,
        width: each.seconds * 0.8, height,
      }));
    });
  });
  ticks.push([short(top), "left:0;width:38px;text-align:right;top:-5px"],
    [short(top / 2), "left:0;width:38px;text-align:right;top:50px"]);
  plot.replaceChildren(svg, ...ticks.map(placed));
}

function placed([text, where]) {
  const tick = make("div", { class: "tick", text });
  for (const rule of where.split(";")) tick.style.setProperty(...rule.split(":"));
  return tick;
}

function shape(tag, attributes) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

function roundUp(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 4, 5, 10].find((step) => step * power >= value) * power;
}

// Upstreams

function showUpstreams({ scope, upstreams }, lately) {
  at("upstreams-scope").textContent = say(SCOPES[scope]);
  const names = new Set(upstreams.map(({ name }) => name));
  for (const [name, row] of rows) {
    if (names.has(name)) continue; // the gateway was started anew, with others
    row.element.remove();
    rows.delete(name);
  }
  for (const upstream of upstreams) {
    if (!rows.has(upstream.name)) {
      const row = upstreamRow(upstream.name);
      rows.set(upstream.name, row);
      at("upstreams").append(row.element);
    }
    rows.get(upstream.name).fill(upstream, lately.upstreams[upstream.name] ?? { attempts: 0, failed: 0 }, lately.seconds);
  }
}

function upstreamRow(name) {
  const cells = Object.fromEntries(["state", "in_flight", "attempts", "failed", "first_token", "last_error"]
    .map((cell) => [cell, make("td", { class: ["state", "last_error"].includes(cell) ? "text" : "n" })]));
  const button = make("button", { type: "button" });
  const element = make("tr", {}, make("td", { class: "text", text: name }), ...Object.values(cells),
    make("td", { class: "end" }, button));
  let isolated = false;
  let sure = 0;
  const label = () => {
    button.textContent = say(isolated ? "restore" : sure ? "sure" : "isolate");
    button.classList.toggle("sure", Boolean(sure));
  };
  const unsure = () => { clearTimeout(sure); sure = 0; label(); };
  button.addEventListener("click", async () => {
    if (!isolated && !sure) { // the first click of two: nobody takes an upstream out by a slip
      sure = setTimeout(unsure, SURE_MS);
      label();
      return;
    }
    unsure();
    button.disabled = true;
    await change(name, isolated ? "restore" : "isolate");
    button.disabled = false;
  });
  return {
    element,
    fill(upstream, counts, seconds) {
      isolated = upstream.isolated;
      label();
      const [word, tone] = stateOf(upstream);
      cells.state.replaceChildren(make("span", { class: `pill ${tone}`, text: word }));
      cells.in_flight.textContent = number(upstream.in_flight);
      cells.attempts.textContent = number(counts.attempts * 60 / Math.max(seconds, 60));
      cells.failed.textContent = counts.attempts ? percent(counts.failed / counts.attempts) : say("none");
      cells.failed.classList.toggle("bad", counts.failed > 0);
      cells.first_token.textContent = duration(upstream.first_token_ewma_s || null);
      const error = upstream.last_error;
      cells.last_error.replaceChildren(...(error === null ? [say("none")] : [
        make("span", { class: "code", text: error.outcome }), " ",
        make("span", { class: "soft", text: `${clock(error.at)} · ${error.message}` })]));
    },
  };
}

async function change(name, action) {
  const asking = visit;
  try {
    await ask(`upstreams/${encodeURIComponent(name)}/${action}`, "POST");
    at("unheard").hidden = true;
  } catch (error) {
    if (asking !== visit && !key) return;
    at("unheard").textContent = say("unheard", { name, why: why(error) });
    at("unheard").hidden = false;
  }
  if (key) await again();
}

function stateOf({ isolated, starting, failing_checks, breaker, cooling_s }) {
  const waiting = (word, seconds) => say("wait", { state: say(word), time: duration(Math.ceil(seconds)) });
  if (isolated) return [say("s_isolated"), "still"];
  if (breaker.state === "open") return [breaker.wait_s ? waiting("s_open", breaker.wait_s) : say("s_open"), "bad"];
  if (starting) return [say("s_starting"), "warn"];
  if (failing_checks) return [say("s_failing"), "bad"];
  if (breaker.state !== "closed") return [say("s_half_open"), "warn"];
  if (cooling_s > 0) return [waiting("s_cooling", cooling_s), "warn"];
  if (breaker.share < 1) return [say("s_ramp", { share: percent(breaker.share) }), "warn"];
  return [say("s_closed"), "good"];
}

// Keys

function showKeys({ first, total, keys }) {
  const last = first + keys.length;
  at("keys-count").textContent = keys.length ? say("keys_count", { first: first + 1, last, total }) : "";
  at("keys-pages").hidden = first === 0 && last >= total;
  at("keys-back").disabled = first === 0;
  at("keys-on").disabled = last >= total;
  fill("keys", keys, keyRow, 7, "no_keys");
}

function keyRow(caller) {
  const tone = { active: "good", disabled: "still", expired: "bad" }[caller.state];
  const state = make("td", {}, make("span", { class: `pill ${tone}`, text: say(`s_${caller.state}`) }));
  if (caller.expires_at !== null && caller.state === "active") {
    state.append(" ", make("span", { class: "soft", text: say("until", { time: clock(caller.expires_at) }) }));
  }
  const models = caller.allowed_models === null ? say("all") : caller.allowed_models.join(", ");
  return make("tr", {}, make("td", { class: "text stacked" }, ...nameOf(caller)), state,
    make("td", { class: "text", text: models }),
    use(caller, "requests_per_minute"), use(caller, "tokens_per_minute"), use(caller, "concurrency"),
    make("td", { class: "n", text: asked(caller.lately) }));
}

function asked(lately) {
  if (lately === null || !lately.requests) return say("none");
  return say("asked", { requests: number(lately.requests), tokens: short(lately.tokens) });
}

function nameOf({ kind, key_id, subject, name }) {
  const parts = [];
  if (name !== null && name !== undefined) parts.push(make("span", { text: name }));
  if (kind === "token") {
    const text = subject === "*" ? say("other_tokens") : say("tokens_of", { subject });
    parts.push(make("span", { class: parts.length ? "soft" : "", text }));
  } else {
    parts.push(make("span", { class: parts.length ? "code soft" : "code", text: key_id ?? say("nobody") }));
  }
  return parts;
}

function use(caller, name) {
  const { limit, used } = caller[name];
  const cell = make("td", { class: "use" });
  if (limit === null) {
    cell.append(make("span", { class: "soft", text: say("unlimited") }));
  } else if (caller.key_id === null) {
    cell.append(make("span", { class: "soft", text: say("per_caller", { limit: number(limit) }) }));
  } else if (used === null) {
    cell.append(make("span", { class: "soft", text: say("unknown_use", { limit: number(limit) }) }));
  } else {
    const share = limit ? used / limit : 1;
    const bar = make("span", { class: share >= 1 ? "over" : share >= 0.8 ? "near" : "" });
    bar.style.width = `${Math.min(share, 1) * 100}%`;
    cell.append(make("span", { text: say("used", { used: number(used), limit: number(limit) }) }));
    if (caller.basis === "share") cell.append(" ", make("span", { class: "soft", text: say("share") }));
    cell.append(make("div", { class: "meter" }, bar));
  }
  return cell;
}

// Errors

function showErrors({ errors }) {
  fill("errors", errors, errorRow, 8, "no_errors");
}

function errorRow(error) {
  const tone = error.status >= 500 || error.status === 200 ? "bad" : "warn";
  const caller = error.key_id === null ? [make("span", { class: "soft", text: say("nobody") })]
    : nameOf({ kind: "key", ...error });
  const model = [make("span", { text: error.model ?? say("none") })];
  if (error.route !== null && error.route !== error.model) {
    model.push(make("span", { class: "soft", text: `→ ${error.route}` }));
  }
  const tried = error.attempts.map(({ upstream, outcome, status }) =>
    make("span", {}, `${upstream} `, make("span", { class: "code soft", text: outcome + (status ? ` ${status}` : "") })));
  return make("tr", {},
    make("td", { text: clock(error.at) }),
    make("td", { class: "n", text: number(error.count) }),
    make("td", {}, make("span", { class: `pill ${tone}`, text: String(error.status) }), " ",
      make("span", { class: "code", text: error.code })),
    make("td", { class: "text stacked" }, ...caller),
    make("td", { class: "text stacked" }, ...model),
    make("td", { class: "text stacked" }, ...(tried.length ? tried : [make("span", { class: "soft", text: say("no_attempt") })])),
    make("td", { class: "n", text: duration(error.seconds) }),
    make("td", { class: "code text", text: error.request_id }));
}

const shown = {}; // as text: rows that say the same are left alone, so that a person can select in them

function fill(id, entries, row, columns, none) {
  const text = JSON.stringify([language, entries, new Date().toDateString()]);
  if (shown[id] === text && at(id).childElementCount) return;
  shown[id] = text;
  at(id).replaceChildren(...(entries.length ? entries.map(row)
    : [make("tr", {}, make("td", { class: "empty", colspan: columns, text: say(none) }))]));
}

// The person

function speak(chosen) {
  language = chosen;
  document.documentElement.lang = language;
  document.title = `Nexus Gateway · ${say("title")}`;
  for (const element of document.querySelectorAll("[data-say]")) element.textContent = say(element.dataset.say);
  for (const button of document.querySelectorAll("[data-language]")) {
    button.setAttribute("aria-pressed", String(button.dataset.language === language));
  }
  at("refused").hidden = true;
  show();
}

for (const button of document.querySelectorAll("[data-language]")) {
  button.addEventListener("click", () => speak(button.dataset.language));
}
at("door").addEventListener("submit", (event) => {
  event.preventDefault();
  key = at("key").value.trim();
  if (/^[\x21-\x7e]+$/.test(key)) look();
  else leave(say("wrong_key")); // no header could carry it
});
at("lock").addEventListener("click", () => leave());
at("keys-back").addEventListener("click", () => { firstKey = Math.max(0, firstKey - 200); again(); });
at("keys-on").addEventListener("click", () => { firstKey += 200; again(); });
document.addEventListener("visibilitychange", () => {
  if (!key || at("desk").hidden) return;
  if (document.hidden) clearTimeout(timer);
  else again();
});
speak(language);
