// The chat page: log in, send a message, follow the answer. The event stream is followed by its sequence numbers, so
// after a lost connection, a reload or a restart of the server it resumes where it was.

import { finishLogin, showProviders } from "/pages/providers.js";

const $ = (selector) => document.querySelector(selector);
const session = {
  get: (name) => sessionStorage.getItem(name),
  set: (name, value) => sessionStorage.setItem(name, value),
  remove: (...names) => names.forEach((name) => sessionStorage.removeItem(name)),
};
// All tabs share the tokens: they are one session.
const tokens = {
  access: () => localStorage.getItem("token"),
  save: (login) => ["token", "refresh_token"].forEach((name) => localStorage.setItem(name, login[name])),
  clear: () => ["token", "refresh_token"].forEach((name) => localStorage.removeItem(name)),
};
const LAST_EVENTS = ["response.completed", "response.incomplete", "response.failed", "sangha:job.cancelled"];
const IDLE_STATUS = "Every answer is a durable job.";
let stream = new AbortController();  // aborts following the current answer

async function request(method, path, body) {
  const isLogin = path === "/login" || path === "/signup";
  const response = await (isLogin ? fetch : fetchAuthorized)(path, { method, body: body && JSON.stringify(body) });
  const value = await response.json();
  if (response.status === 401 && !isLogin) throw endSession();
  if (!response.ok) throw Object.assign(new Error(value.error.message), { status: response.status });
  return value;
}

// An access token is valid for minutes. When it has expired, refresh it and repeat the request.
async function fetchAuthorized(path, options) {
  const send = (token) => fetch(path, { ...options, headers: { ...options.headers, authorization: `Bearer ${token}` } });
  const token = tokens.access();
  const response = await send(token);
  if (response.status !== 401 || !(await refresh(token))) return response;
  return send(tokens.access());
}

// A refresh token is valid once, so only one tab uses it, and the others find the new tokens.
async function refresh(expired) {
  return withLock(async () => {
    if (tokens.access() !== expired) return tokens.access() !== null;
    const refresh_token = localStorage.getItem("refresh_token");
    if (!refresh_token) return false;
    const response = await fetch("/auth/refresh", { method: "POST", body: JSON.stringify({ refresh_token }) });
    if (response.ok) tokens.save(await response.json());
    else if (response.status >= 500 || response.status === 429) throw new Error("The server is busy. Try again later.");
    return response.ok;
  });
}

// Browsers provide locks only to pages that came over TLS or from this machine.
function withLock(work) { return navigator.locks ? navigator.locks.request("sangha.refresh", work) : work(); }

function showStatus(text) { $("#state").textContent = text; }

async function logOut() {
  try {
    await request("POST", "/auth/logout");
  } catch (error) {
    if (tokens.access()) return showStatus(`You are still logged in: ${error.message}`);
  }
  tokens.clear();
  sessionStorage.clear();
  location.reload();
}

// The tokens are no longer valid. The conversation is kept and continues after the next login.
function endSession() {
  const error = new Error("Your session has expired. Please log in again.");
  tokens.clear();
  stream.abort();
  $("#chat").hidden = true;
  $("#login").hidden = false;
  showStatus(error.message);
  return error;
}

function setBusy(busy) { $("#send").disabled = busy; }

function addTurn(role, text = "") {
  const turn = document.createElement("li");
  turn.className = role;
  turn.textContent = text;
  $("#turns").append(turn);
  turn.scrollIntoView({ block: "end" });
  return turn;
}

function addNote(turn, text) {
  const line = document.createElement("span");
  line.className = "note";
  line.textContent = text;
  turn.append(line);
}

// The recalled memories in the prompt of a turn, collapsed. Events have no texts: they are read when they are shown.
function showRecalled(turn, memories) {
  if (!memories?.length || turn.querySelector("details")) return;
  const details = document.createElement("details");
  const summary = document.createElement("summary");
  summary.textContent = memories.length === 1 ? "1 memory" : `${memories.length} memories`;
  const list = document.createElement("ul");
  details.addEventListener("toggle", () => memories.forEach((memory) => showMemory(list, memory)), { once: true });
  details.append(summary, list);
  turn.append(details);
}

async function showMemory(list, { id, kind }) {
  const line = document.createElement("li");
  list.append(line);
  try {
    const { occurred_at, speaker, text } = await request("GET", `/v1/memories/${id}`);
    line.textContent = `${occurred_at.slice(0, 10)} · ${speaker || kind}: ${text}`;
  } catch (error) {
    line.textContent = error.message;
  }
}

// Yield the events of a response until its last one, reconnecting as often as necessary.
async function* events(id, signal) {
  let after = -1;
  for (let wait = 0; ; wait = Math.min(wait + 500, 5000)) {
    try {
      for await (const event of connection(id, after, signal)) {
        after = event.sequence_number;
        wait = 0;
        yield event;
        if (LAST_EVENTS.includes(event.type)) return;
      }
    } catch (error) {
      if (error.final || signal.aborted) throw error;
    }
    showStatus("The connection was lost. Reconnecting …");
    await new Promise((done) => setTimeout(done, wait));
  }
}

// Yield the events of one connection after a sequence number.
async function* connection(id, after, signal) {
  const path = `/v1/responses/${id}?stream=true&starting_after=${after}`;
  const response = await fetchAuthorized(path, { headers: { "X-Sangha-Events": "all" }, signal });
  if (response.status === 401) throw endSession();
  if (response.status === 404) throw Object.assign(new Error("This answer has been deleted."), { final: true });
  if (!response.ok) {
    throw Object.assign(new Error((await response.json()).error.message), { final: response.status < 500 });
  }
  showStatus("Connected.");
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (let chunk = await reader.read(); !chunk.done; chunk = await reader.read()) {
    text += chunk.value;
    const frames = text.split("\n\n");
    text = frames.pop();
    for (const frame of frames) {
      const data = frame.split("\n").find((line) => line.startsWith("data: "));
      if (data) yield JSON.parse(data.slice(6));
    }
  }
}

async function follow(id) {
  session.set("following", id);
  stream = new AbortController();
  const { signal } = stream;
  setBusy(true);
  const turn = addTurn("assistant");
  const answer = document.createTextNode("");
  answer.deltas = [];  // [sequence number, text]
  turn.append(answer);
  turn.classList.add("running");
  $("#stop").hidden = false;
  $("#stop").onclick = () => request("POST", `/v1/responses/${id}/cancel`).catch((error) => showStatus(error.message));
  try {
    for await (const event of events(id, signal)) apply(event, turn, answer);
  } catch (error) {
    if (!signal.aborted) addNote(turn, error.message);
  }
  turn.classList.remove("running");
  $("#stop").hidden = true;
  setBusy(false);
  if (!signal.aborted) session.remove("following");
}

function apply(event, turn, answer) {
  if (event.type === "response.output_text.delta") answer.deltas.push([event.sequence_number, event.delta]);
  if (event.type === "sangha:answer.restarted") answer.deltas = [];
  if (event.type === "sangha:journal.rewound") {
    answer.deltas = answer.deltas.filter(([sequence]) => sequence < event.sequence_number);
  }
  answer.data = answer.deltas.map(([, text]) => text).join("");
  if (event.type === "sangha:memory.recalled") showRecalled(turn, event.memories);
  if (event.type === "sangha:job.cancelled") addNote(turn, "stopped");
  if (event.type === "response.failed") addNote(turn, event.response.error.message);
  if (event.response?.usage) {
    addNote(turn, `${event.response.usage.output_tokens} tokens · ${event.response.model}`);
    showStatus(IDLE_STATUS);
  }
}

async function createResponse(input) {
  if (!session.get("conversation")) session.set("conversation", (await request("POST", "/v1/conversations", {})).id);
  const conversation = session.get("conversation");
  return request("POST", "/v1/responses", { input, conversation, background: true });
}

function showItem(item) { addTurn(item.role, item.content.map((part) => part.text).join("")); }

// The items of the conversation or response whose id is stored under a name. An id that does not exist, such as one of
// another account, is removed.
async function loadItems(name, path) {
  if (!session.get(name)) return [];
  try {
    return (await request("GET", path(session.get(name)))).data;
  } catch (error) {
    if (error.status !== 404) throw error;
    session.remove(name);
    return [];
  }
}

// Show the conversation, and follow the answer that was being followed before the reload.
async function restore() {
  $("#turns").replaceChildren();
  const items = await loadItems("conversation", (id) => `/v1/conversations/${id}/items?order=desc&limit=100`);
  items.reverse().forEach(showItem);
  const input = await loadItems("following", (id) => `/v1/responses/${id}/input_items?order=asc`);
  if (!session.get("following")) return;
  if (input.some((item) => items.some((shown) => shown.id === item.id))) {
    session.remove("following");  // it has ended in the meantime, so the conversation contains it
    return;
  }
  input.forEach(showItem);
  await follow(session.get("following"));
}

async function openChat() {
  showStatus(IDLE_STATUS);
  $("#login").hidden = true;
  $("#chat").hidden = false;
  setBusy(true);
  try {
    await restore();
  } finally {
    setBusy(false);
  }
}

$("#login").addEventListener("submit", async (event) => {
  event.preventDefault();
  const { email, password } = event.target.elements;
  try {
    const path = `/${event.submitter.value}`;
    tokens.save(await request("POST", path, { email: email.value, password: password.value }));
    await openChat();
  } catch (error) {
    showStatus(error.message);
  }
});

$("#ask").addEventListener("submit", async (event) => {
  event.preventDefault();
  const box = event.target.elements.input;
  const input = box.value.trim();
  if (!input || $("#send").disabled) return;
  setBusy(true);
  box.value = "";
  try {
    const response = await createResponse(input);
    showStatus(IDLE_STATUS);
    addTurn("user", input);
    await follow(response.id);
  } catch (error) {
    box.value = [input, box.value].filter(Boolean).join("\n");
    showStatus(error.message);
  } finally {
    setBusy(false);
  }
});

$("#ask textarea").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey) {
    event.preventDefault();
    $("#ask").requestSubmit($("#send"));
  }
});

$("#logout").addEventListener("click", logOut);
// A logout in one tab logs out in all.
addEventListener("storage", ({ key, newValue }) => { if (key === "token" && newValue === null) location.reload(); });

async function start() {
  const login = await finishLogin();
  if (login) tokens.save(login);
  if (tokens.access()) await openChat();
}

showProviders($("#providers"));
start().catch((error) => showStatus(error.message));
