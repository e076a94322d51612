// The steps of Vercel's AI SDK, which are the same with each of its providers.

import assert from "node:assert/strict";
import { embedMany, generateText, isStepCount, Output, streamText, tool } from "ai";
import { z } from "zod";
import { checkHistory, checkText, DIMENSIONS, joined, run } from "./steps.mjs";

const Sighting = z.object({ animal: z.string(), count: z.number().int() });
const weather = tool({
  description: "Tells the weather of a city.",
  inputSchema: z.object({ city: z.string() }),
  execute: async ({ city }) => `It rains in ${city}.`,
});

export async function runSteps(models, embedder) {
  async function hello() {
    for (const model of models) checkText((await generateText({ model, system: "Be kind.", prompt: "hello" })).text);
  }

  async function stream() {
    for (const model of models) checkText(await joined(streamText({ model, prompt: "hello" }).textStream));
  }

  async function tools() {
    for (const model of models) {
      const options = { model, prompt: "Please call weather.", tools: { weather }, stopWhen: isStepCount(5) };
      const { text, steps } = await generateText(options);
      checkText(text);
      assert.deepEqual(steps[0].toolResults.map((result) => result.output), ["It rains in ."]);
      const streamed = streamText(options);
      checkText(await joined(streamed.textStream));
      assert.equal((await streamed.steps).length, 2);
    }
  }

  async function schema() {
    for (const model of models) {
      const { output } = await generateText({ model, prompt: "hello", output: Output.object({ schema: Sighting }) });
      assert.deepEqual(output, { animal: "", count: 0 });
    }
  }

  async function embeddings() {
    const { embeddings: vectors } = await embedMany({ model: embedder, values: ["a cat", "a dog"] });
    assert.deepEqual(vectors.map((vector) => vector.length), [DIMENSIONS, DIMENSIONS]);
  }

  async function conversation() {
    for (const model of models) {
      const messages = [{ role: "user", content: "one" }];
      const { response } = await generateText({ model, messages });
      const { usage } = await generateText({
        model,
        messages: [...messages, ...response.messages, { role: "user", content: "two" }],
      });
      checkHistory(usage.inputTokens);
    }
  }

  // Leave a stream after its first piece.
  async function abort() {
    for (const model of models) {
      const controller = new AbortController();
      const { stream } = streamText({ model, prompt: "slowly", abortSignal: controller.signal });
      const types = [];
      for await (const part of stream) {
        types.push(part.type);
        if (part.type === "text-delta") controller.abort();
      }
      assert.equal(types.at(-1), "abort");
    }
  }

  await run(hello, stream, tools, schema, embeddings, conversation, abort);
}
