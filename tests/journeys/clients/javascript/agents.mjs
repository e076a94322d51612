// OpenAI's Agents SDK, over responses and chat completions.

import assert from "node:assert/strict";
import {
  Agent,
  MemorySession,
  OpenAIChatCompletionsModel,
  OpenAIResponsesModel,
  hostedMcpTool,
  run as runAgent,
  setTracingDisabled,
  tool,
} from "@openai/agents";
import OpenAI from "openai";
import { z } from "zod";
import { AGENT, BOUGHT, BUY, checkHistory, checkText, joined, MODEL, run, SHOP } from "./steps.mjs";

setTracingDisabled(true);

const client = new OpenAI({ maxRetries: 0, timeout: 60_000 });
const MODELS = [new OpenAIResponsesModel(client, MODEL), new OpenAIChatCompletionsModel(client, MODEL)];
const AGENTS = [new OpenAIResponsesModel(client, AGENT), new OpenAIChatCompletionsModel(client, AGENT)];
const weather = tool({
  name: "weather",
  description: "Tells the weather of a city.",
  parameters: z.object({ city: z.string() }),
  execute: async ({ city }) => `It rains in ${city}.`,
});

async function hello() {
  for (const model of MODELS) {
    const agent = new Agent({ name: "clerk", instructions: "Be kind.", model });
    checkText((await runAgent(agent, "hello")).finalOutput);
  }
}

async function stream() {
  for (const model of MODELS) {
    const result = await runAgent(new Agent({ name: "clerk", model }), "hello", { stream: true });
    checkText(await joined(result.toTextStream()));
    await result.completed;
    checkText(result.finalOutput);
  }
}

async function tools() {
  for (const model of MODELS) {
    const agent = new Agent({ name: "clerk", model, tools: [weather] });
    const result = await runAgent(agent, "Please call weather.");
    checkText(result.finalOutput);
    const outputs = result.newItems.filter((item) => item.type === "tool_call_output_item");
    assert.deepEqual(outputs.map((item) => item.output), ["It rains in ."]);
  }
}

async function schema() {
  const outputType = z.object({ animal: z.string(), count: z.number().int() });
  for (const model of MODELS) {
    const { finalOutput } = await runAgent(new Agent({ name: "clerk", model, outputType }), "hello");
    assert.deepEqual(finalOutput, { animal: "", count: 0 });
  }
}

async function mcp() {
  const tools = [hostedMcpTool({ serverLabel: SHOP.server_label, serverUrl: SHOP.server_url })];
  const result = await runAgent(new Agent({ name: "clerk", model: MODELS[0], tools }), BUY);
  checkText(result.finalOutput);
  assert.deepEqual(bought(result), [BOUGHT]);
}

async function agent() {
  for (const model of AGENTS) {
    checkText((await runAgent(new Agent({ name: "buyer", model }), BUY)).finalOutput);
    const mixed = await runAgent(new Agent({ name: "buyer", model, tools: [weather] }), `${BUY} And call weather.`);
    checkText(mixed.finalOutput);
    const outputs = mixed.newItems.filter((item) => item.type === "tool_call_output_item");
    assert.deepEqual(outputs.map((item) => item.output), ["It rains in ."]);
  }
}

async function approval() {
  const onApproval = async () => ({ approve: true });
  const tools = [
    hostedMcpTool({
      serverLabel: SHOP.server_label,
      serverUrl: SHOP.server_url,
      requireApproval: "always",
      onApproval,
    }),
  ];
  const result = await runAgent(new Agent({ name: "clerk", model: MODELS[0], tools }), BUY);
  checkText(result.finalOutput);
  assert.deepEqual(bought(result), [BOUGHT]);
}

function bought(result) {
  const calls = result.newItems.filter((item) => item.type === "tool_call_item").map((item) => item.rawItem);
  return calls.filter((call) => call.name === "mcp_call").map((call) => call.output);
}

async function handoff() {
  for (const model of MODELS) {
    const other = new Agent({ name: "translator", handoffDescription: "Translates.", model });
    const agent = Agent.create({ name: "clerk", model, handoffs: [other] });
    const result = await runAgent(agent, "Please call transfer_to_translator.");
    checkText(result.finalOutput);
    assert.equal(result.lastAgent.name, "translator");
  }
}

async function conversation() {
  for (const model of MODELS) {
    const agent = new Agent({ name: "clerk", model });
    const session = new MemorySession();
    await runAgent(agent, "one", { session });
    const result = await runAgent(agent, "two", { session });
    checkText(result.finalOutput);
    checkHistory(result.rawResponses[0].usage.inputTokens);
  }
}

await run(hello, stream, tools, schema, mcp, agent, handoff, conversation, approval);
