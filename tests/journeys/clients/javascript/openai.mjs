// openai-node, OpenAI's own client, over responses and chat completions.

import assert from "node:assert/strict";
import OpenAI from "openai";
import { zodResponseFormat, zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";
import { checkHistory, checkText, DIMENSIONS, EMBEDDER, joined, MODEL, run } from "./steps.mjs";

const client = new OpenAI({ maxRetries: 0, timeout: 60_000 });
const HELLO = [{ role: "user", content: "hello" }];
const QUESTION = [{ role: "user", content: "Please call weather." }];
const PARAMETERS = {
  type: "object",
  properties: { city: { type: "string" } },
  required: ["city"],
  additionalProperties: false,
};
const Sighting = z.object({ animal: z.string(), count: z.number().int() });

async function hello() {
  checkText((await client.responses.create({ model: MODEL, input: "hello" })).output_text);
  const completion = await client.chat.completions.create({ model: MODEL, messages: HELLO });
  checkText(completion.choices[0].message.content);
}

async function stream() {
  const events = await client.responses.create({ model: MODEL, input: "hello", stream: true });
  checkText(await joined(events, (event) => event.type === "response.output_text.delta" && event.delta || ""));
  const helper = client.responses.stream({ model: MODEL, input: "hello" });
  checkText(await joined(helper, (event) => event.type === "response.output_text.delta" && event.delta || ""));
  checkText((await helper.finalResponse()).output_text);
  checkText(await client.chat.completions.stream({ model: MODEL, messages: HELLO }).finalContent());
}

async function tools() {
  const tool = { type: "function", name: "weather", parameters: PARAMETERS, strict: true };
  const request = await client.responses.create({ model: MODEL, input: QUESTION, tools: [tool] });
  const [call] = request.output;
  assert.deepEqual(JSON.parse(call.arguments), { city: "" });
  const output = { type: "function_call_output", call_id: call.call_id, output: "It rains." };
  const answer = await client.responses.create({ model: MODEL, input: [...QUESTION, call, output], tools: [tool] });
  checkText(answer.output_text);
  const weather = { name: "weather", parameters: PARAMETERS, parse: JSON.parse, function: () => "It rains." };
  const runner = client.chat.completions.runTools({
    model: MODEL,
    messages: QUESTION,
    tools: [{ type: "function", function: weather }],
  });
  checkText(await runner.finalContent());
}

async function schema() {
  const response = await client.responses.parse({
    model: MODEL,
    input: "hello",
    text: { format: zodTextFormat(Sighting, "sighting") },
  });
  assert.deepEqual(response.output_parsed, { animal: "", count: 0 });
  const completion = await client.chat.completions.parse({
    model: MODEL,
    messages: HELLO,
    response_format: zodResponseFormat(Sighting, "sighting"),
  });
  assert.deepEqual(completion.choices[0].message.parsed, { animal: "", count: 0 });
}

async function embeddings() {
  const { data } = await client.embeddings.create({ model: EMBEDDER, input: ["a cat", "a dog"] });
  assert.deepEqual(data.map((vector) => vector.embedding.length), [DIMENSIONS, DIMENSIONS]);
}

async function conversation() {
  const { id } = await client.conversations.create();
  await client.responses.create({ model: MODEL, input: "one", conversation: id });
  const second = await client.responses.create({ model: MODEL, input: "two", conversation: id });
  checkHistory(second.usage.input_tokens);
  assert.equal((await client.conversations.items.list(id)).data.length, 4);
}

// Leave a stream after its first piece.
async function abort() {
  const events = await client.responses.create({ model: MODEL, input: "slowly", stream: true });
  for await (const event of events) {
    if (event.type === "response.output_text.delta") events.controller.abort();
  }
  const helper = client.chat.completions.stream({ model: MODEL, messages: [{ role: "user", content: "slowly" }] });
  helper.on("content", () => helper.abort());
  await assert.rejects(helper.finalContent(), OpenAI.APIUserAbortError);
}

await run(hello, stream, tools, schema, embeddings, conversation, abort);
