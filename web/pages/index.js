// A person's way in: log in, ask, follow. The stream is followed by its cursor, so a lost connection, a reload or a
// restarted server only makes it go on from where it was.

const $ = (selector) => document.querySelector(selector);
const kept = { get: (name) => sessionStorage.getItem(name), set: (name, value) => sessionStorage.setItem(name, value) };
const LAST = ["response.completed", "response.incomplete", "response.failed", "sangha.job.cancelled"];

async function call(method, path, body) {
  const headers = kept.get("token") ? { authorization: `Bearer ${kept.get("token")}` } : {};
  const answer = await fetch(path, { method, headers, body: body && JSON.stringify(body) });
  const value = await answer.json();
  if (answer.status === 401 && path.startsWith("/v1/")) leave();
  if (!answer.ok) throw new Error(value.error.message);
  return value;
}

function say(text) { $("#state").textContent = text; }

function leave() { sessionStorage.clear(); location.reload(); }

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

// The events of a response from a sequence number on, until its last one; reconnects as often as it takes.
async function* events(id) {
  let after = -1;
  for (let wait = 0; ; wait = Math.min(wait + 500, 5000)) {
    try {
      for await (const event of connection(id, after)) {
        after = event.sequence_number;
        wait = 0;
        yield event;
        if (LAST.includes(event.type)) return;
      }
    } catch (error) {
      if (error.final) throw error;
    }
    say("The connection was lost; going on …");
    await new Promise((done) => setTimeout(done, wait));
  }
}

async function* connection(id, after) {
  const headers = { authorization: `Bearer ${kept.get("token")}` };
  const answer = await fetch(`/v1/responses/${id}?stream=true&starting_after=${after}`, { headers });
  if (answer.status >= 400 && answer.status < 500) throw Object.assign(new Error("This answer is gone."), { final: true });
  if (!answer.ok) throw new Error("not now");
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
  const turn = show("assistant");
  const words = document.createTextNode("");
  words.said = [];  // [sequence number, text]
  turn.append(words);
  turn.classList.add("running");
  $("#stop").hidden = false;
  $("#stop").onclick = () => call("POST", `/v1/responses/${id}/cancel`).catch((error) => say(error.message));
  try {
    for await (const event of events(id)) step(event, turn, words);
  } catch (error) {
    note(turn, error.message);
  }
  turn.classList.remove("running");
  $("#stop").hidden = true;
  kept.set("following", "");
}

function step(event, turn, words) {
  if (event.type === "response.output_text.delta") words.said.push([event.sequence_number, event.delta]);
  if (event.type === "sangha.answer.restarted") words.said = [];
  if (event.type === "sangha.journal.rewound") words.said = words.said.filter(([at]) => at < event.sequence_number);
  words.data = words.said.map(([, text]) => text).join("");
  if (event.type === "sangha.job.cancelled") note(turn, "stopped");
  if (event.type === "response.failed") note(turn, event.response.error.message);
  if (event.response?.usage) {
    note(turn, `${event.response.usage.output_tokens} tokens · ${event.response.model}`);
    say("Every answer is a durable job.");
  }
}

async function ask(input) {
  if (!kept.get("conversation")) kept.set("conversation", (await call("POST", "/v1/conversations", {})).id);
  const conversation = kept.get("conversation");
  const response = await call("POST", "/v1/responses", { input, conversation, background: true });
  show("user", input);
  await follow(response.id);
}

async function open() {
  $("#entry").hidden = true;
  $("#chat").hidden = false;
  if (kept.get("conversation")) {
    const items = await call("GET", `/v1/conversations/${kept.get("conversation")}/items?order=asc&limit=100`);
    for (const item of items.data) show(item.role, item.content.map((part) => part.text).join(""));
  }
  if (kept.get("following")) {
    const input = await call("GET", `/v1/responses/${kept.get("following")}/input_items?order=asc`);
    for (const item of input.data) show(item.role, item.content.map((part) => part.text).join(""));
    await follow(kept.get("following"));
  }
}

$("#entry").addEventListener("submit", async (submitted) => {
  submitted.preventDefault();
  const { email, password } = submitted.target.elements;
  try {
    const answer = await call("POST", `/${submitted.submitter.value}`, { email: email.value, password: password.value });
    kept.set("token", answer.token);
    await open();
  } catch (error) {
    say(error.message);
  }
});

$("#ask").addEventListener("submit", async (submitted) => {
  submitted.preventDefault();
  const box = submitted.target.elements.input;
  const input = box.value;
  box.value = "";
  try {
    await ask(input);
  } catch (error) {
    box.value = input;
    say(error.message);
  }
});

$("#ask textarea").addEventListener("keydown", (pressed) => {
  if (pressed.key === "Enter" && !pressed.shiftKey) {
    pressed.preventDefault();
    $("#ask").requestSubmit($("#send"));
  }
});

$("#leave").addEventListener("click", leave);
if (kept.get("token")) open().catch((error) => say(error.message));
