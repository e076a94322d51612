// A person's way in: log in, ask, follow. The stream is followed by its cursor, so a lost connection, a reload or a
// restarted server only makes it go on from where it was.

import { arrive, offer } from "/pages/providers.js";

const $ = (selector) => document.querySelector(selector);
const kept = {
  get: (name) => sessionStorage.getItem(name),
  set: (name, value) => sessionStorage.setItem(name, value),
  drop: (...names) => names.forEach((name) => sessionStorage.removeItem(name)),
};
// The tokens are shared by all tabs: they are one session.
const pass = {
  token: () => localStorage.getItem("token"),
  keep: (entry) => ["token", "refresh_token"].forEach((name) => localStorage.setItem(name, entry[name])),
  drop: () => ["token", "refresh_token"].forEach((name) => localStorage.removeItem(name)),
};
const LAST = ["response.completed", "response.incomplete", "response.failed", "sangha:job.cancelled"];
const QUIET = "Every answer is a durable job.";
let stream = new AbortController();  // ends the following of the present answer

async function call(method, path, body) {
  const entering = path === "/login" || path === "/signup";
  const answer = await (entering ? fetch : authorized)(path, { method, body: body && JSON.stringify(body) });
  const value = await answer.json();
  if (answer.status === 401 && !entering) throw ended();
  if (!answer.ok) throw Object.assign(new Error(value.error.message), { status: answer.status });
  return value;
}

// A token holds for minutes: when it has ended, the same once more with the next one.
async function authorized(path, options) {
  const token = pass.token();
  const answer = await fetch(path, { ...options, headers: { authorization: `Bearer ${token}` } });
  if (answer.status !== 401 || !(await renew(token))) return answer;
  return fetch(path, { ...options, headers: { authorization: `Bearer ${pass.token()}` } });
}

// A refresh token is good once. So one tab asks for the next tokens, and the others find what it got.
async function renew(ended) {
  return alone(async () => {
    if (pass.token() !== ended) return pass.token() !== null;
    const refresh_token = localStorage.getItem("refresh_token");
    if (!refresh_token) return false;
    const answer = await fetch("/auth/refresh", { method: "POST", body: JSON.stringify({ refresh_token }) });
    if (answer.ok) pass.keep(await answer.json());
    else if (answer.status >= 500 || answer.status === 429) throw new Error("The server is busy: try again.");
    return answer.ok;
  });
}

// Browsers have locks where the page came over TLS or from this machine.
function alone(work) { return navigator.locks ? navigator.locks.request("sangha.refresh", work) : work(); }

function say(text) { $("#state").textContent = text; }

async function leave() {
  try {
    await call("POST", "/auth/logout");
  } catch (error) {
    if (pass.token()) return say(`You are still logged in: ${error.message}`);
  }
  pass.drop();
  sessionStorage.clear();
  location.reload();
}

// The tokens are worth nothing any more; all else stays, and goes on after the next login.
function ended() {
  const error = new Error("Your session has ended: log in again.");
  pass.drop();
  stream.abort();
  $("#chat").hidden = true;
  $("#entry").hidden = false;
  say(error.message);
  return error;
}

function busy(so) { $("#send").disabled = so; }

function show(role, text = "") {
  const turn = document.createElement("li");
  turn.className = role;
  turn.textContent = text;
  $("#turns").append(turn);
  turn.scrollIntoView({ block: "end" });
  return turn;
}

function note(turn, text) {
  const line = document.createElement("span");
  line.className = "note";
  line.textContent = text;
  turn.append(line);
}

// What earlier conversations said to it, in the prompt: closed until somebody wants to know.
function showRecalled(turn, memories) {
  if (!memories?.length || turn.querySelector("details")) return;
  const box = document.createElement("details");
  const count = document.createElement("summary");
  count.textContent = memories.length === 1 ? "1 memory" : `${memories.length} memories`;
  const list = document.createElement("ul");
  for (const memory of memories) {
    const line = document.createElement("li");
    line.textContent = `${memory.occurred_at.slice(0, 10)} · ${memory.speaker || memory.kind}: ${memory.text}`;
    list.append(line);
  }
  box.append(count, list);
  turn.append(box);
}

// The events of a response from a sequence number on, until its last one; reconnects as often as it takes.
async function* events(id, signal) {
  let after = -1;
  for (let wait = 0; ; wait = Math.min(wait + 500, 5000)) {
    try {
      for await (const event of connection(id, after, signal)) {
        after = event.sequence_number;
        wait = 0;
        yield event;
        if (LAST.includes(event.type)) return;
      }
    } catch (error) {
      if (error.final || signal.aborted) throw error;
    }
    say("The connection was lost; going on …");
    await new Promise((done) => setTimeout(done, wait));
  }
}

async function* connection(id, after, signal) {
  const answer = await authorized(`/v1/responses/${id}?stream=true&starting_after=${after}`, { signal });
  if (answer.status === 401) throw ended();
  if (answer.status === 404) throw Object.assign(new Error("This answer is gone."), { final: true });
  if (!answer.ok) throw Object.assign(new Error((await answer.json()).error.message), { final: answer.status < 500 });
  say("Connected.");
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    text += part.value;
    const frames = text.split("\n\n");
    text = frames.pop();
    for (const frame of frames) {
      const data = frame.split("\n").find((line) => line.startsWith("data: "));
      if (data) yield JSON.parse(data.slice(6));
    }
  }
}

async function follow(id) {
  kept.set("following", id);
  stream = new AbortController();
  const { signal } = stream;
  busy(true);
  const turn = show("assistant");
  const words = document.createTextNode("");
  words.said = [];  // [sequence number, text]
  turn.append(words);
  turn.classList.add("running");
  $("#stop").hidden = false;
  $("#stop").onclick = () => call("POST", `/v1/responses/${id}/cancel`).catch((error) => say(error.message));
  try {
    for await (const event of events(id, signal)) step(event, turn, words);
  } catch (error) {
    if (!signal.aborted) note(turn, error.message);
  }
  turn.classList.remove("running");
  $("#stop").hidden = true;
  busy(false);
  if (!signal.aborted) kept.drop("following");
}

function step(event, turn, words) {
  if (event.type === "response.output_text.delta") words.said.push([event.sequence_number, event.delta]);
  if (event.type === "sangha:answer.restarted") words.said = [];
  if (event.type === "sangha:journal.rewound") words.said = words.said.filter(([at]) => at < event.sequence_number);
  words.data = words.said.map(([, text]) => text).join("");
  if (event.type === "sangha:memory.recalled") showRecalled(turn, event.memories);
  if (event.type === "sangha:job.cancelled") note(turn, "stopped");
  if (event.type === "response.failed") note(turn, event.response.error.message);
  if (event.response?.usage) {
    note(turn, `${event.response.usage.output_tokens} tokens · ${event.response.model}`);
    say(QUIET);
  }
}

async function ask(input) {
  if (!kept.get("conversation")) kept.set("conversation", (await call("POST", "/v1/conversations", {})).id);
  const conversation = kept.get("conversation");
  return call("POST", "/v1/responses", { input, conversation, background: true });
}

function showItem(item) { show(item.role, item.content.map((part) => part.text).join("")); }

// The items of what is kept under a name; what is not found (it may be another account's) is forgotten.
async function items(name, path) {
  if (!kept.get(name)) return [];
  try {
    return (await call("GET", path(kept.get(name)))).data;
  } catch (error) {
    if (error.status !== 404) throw error;
    kept.drop(name);
    return [];
  }
}

// What was said so far, and the answer that was being followed.
async function restore() {
  $("#turns").replaceChildren();
  const said = await items("conversation", (id) => `/v1/conversations/${id}/items?order=desc&limit=100`);
  said.reverse().forEach(showItem);
  const input = await items("following", (id) => `/v1/responses/${id}/input_items?order=asc`);
  if (!kept.get("following")) return;
  if (input.some((item) => said.some((known) => known.id === item.id))) {
    kept.drop("following");  // it ended while nobody followed, and stands above
    return;
  }
  input.forEach(showItem);
  await follow(kept.get("following"));
}

async function open() {
  say(QUIET);
  $("#entry").hidden = true;
  $("#chat").hidden = false;
  busy(true);
  try {
    await restore();
  } finally {
    busy(false);
  }
}

$("#entry").addEventListener("submit", async (submitted) => {
  submitted.preventDefault();
  const { email, password } = submitted.target.elements;
  try {
    const answer = await call("POST", `/${submitted.submitter.value}`, { email: email.value, password: password.value });
    pass.keep(answer);
    await open();
  } catch (error) {
    say(error.message);
  }
});

$("#ask").addEventListener("submit", async (submitted) => {
  submitted.preventDefault();
  const box = submitted.target.elements.input;
  const input = box.value.trim();
  if (!input || $("#send").disabled) return;
  busy(true);
  box.value = "";
  try {
    const response = await ask(input);
    say(QUIET);
    show("user", input);
    await follow(response.id);
  } catch (error) {
    box.value = [input, box.value].filter(Boolean).join("\n");
    say(error.message);
  } finally {
    busy(false);
  }
});

$("#ask textarea").addEventListener("keydown", (pressed) => {
  if (pressed.key === "Enter" && !pressed.shiftKey) {
    pressed.preventDefault();
    $("#ask").requestSubmit($("#send"));
  }
});

$("#leave").addEventListener("click", leave);
// Logging out in one tab logs out in all.
addEventListener("storage", ({ key, newValue }) => { if (key === "token" && newValue === null) location.reload(); });

async function begin() {
  const entry = await arrive();
  if (entry) pass.keep(entry);
  if (pass.token()) await open();
}

offer($("#providers"));
begin().catch((error) => say(error.message));
