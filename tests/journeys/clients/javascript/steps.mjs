// Run the steps of a client's script: each prints a line of JSON with its name and, where it failed, the error.
// See ../python/steps.py.

import assert from "node:assert/strict";

export const URL = process.env.OPENAI_BASE_URL;
export const KEY = process.env.OPENAI_API_KEY;
export const MODEL = "default";
export const AGENT = "agent/buyer";
export const EMBEDDER = "all-minilm-l6-v2";
export const DIMENSIONS = 384;

// The tool of a request, what its call returns, and the question for which the model calls it.
export const SHOP = {
  type: "mcp",
  server_label: "shop",
  server_url: process.env.SHOP_URL,
  require_approval: "never",
};
export const BOUGHT = "bought";
export const BUY = "Please call shop__buy.";

const TEXT = Array.from({ length: 20 }, (_, number) => `w${number}`).join(" ");

export async function run(...steps) {
  for (const step of steps) {
    console.log(JSON.stringify({ step: step.name, error: await errorOf(step) }));
  }
}

async function errorOf(step) {
  try {
    await step();
    return null;
  } catch (error) {
    return `${error?.stack ?? error} ${error?.responseBody ?? ""}`.trim();
  }
}

// Throw unless the text is the scripted answer.
export function checkText(text) {
  assert.equal((text ?? "").trim(), TEXT);
}

export async function joined(pieces, textOf = (piece) => piece) {
  let text = "";
  for await (const piece of pieces) text += textOf(piece) ?? "";
  return text;
}

// Throw unless a second question came with the first one and its answer: words count as tokens.
export function checkHistory(inputTokens) {
  assert(inputTokens === 1 + 20 + 1, `${inputTokens} tokens`);
}
