// LangChain and LangGraph, over responses and chat completions.

import assert from "node:assert/strict";
import { HumanMessage, SystemMessage, ToolMessage } from "@langchain/core/messages";
import { tool } from "@langchain/core/tools";
import { MessagesAnnotation, START, StateGraph } from "@langchain/langgraph";
import { ChatOpenAI, OpenAIEmbeddings } from "@langchain/openai";
import { z } from "zod";
import { checkText, DIMENSIONS, EMBEDDER, joined, MODEL, run } from "./steps.mjs";

const MODELS = [true, false].map(
  (useResponsesApi) => new ChatOpenAI({ model: MODEL, useResponsesApi, maxRetries: 0, timeout: 60_000 }),
);
const weather = tool(async ({ city }) => `It rains in ${city}.`, {
  name: "weather",
  description: "Tells the weather of a city.",
  schema: z.object({ city: z.string() }),
});

async function hello() {
  for (const model of MODELS) {
    const answer = await model.invoke([new SystemMessage("Be kind."), new HumanMessage("hello")]);
    checkText(answer.text);
    assert.equal(answer.usage_metadata.output_tokens, 20);
  }
}

async function stream() {
  for (const model of MODELS) checkText(await joined(await model.stream("hello"), (piece) => piece.text));
}

async function tools() {
  for (const model of MODELS) {
    const withTool = model.bindTools([weather]);
    const question = new HumanMessage("Please call weather.");
    const request = await withTool.invoke([question]);
    const [call] = request.tool_calls;
    const result = await weather.invoke(call);
    assert(result instanceof ToolMessage);
    checkText((await withTool.invoke([question, request, result])).text);
  }
}

async function schema() {
  const Sighting = z.object({ animal: z.string(), count: z.number().int() });
  for (const model of MODELS) {
    for (const method of ["jsonSchema", "functionCalling"]) {
      const answer = await model.withStructuredOutput(Sighting, { method, name: "sighting" }).invoke("hello");
      assert.deepEqual(answer, { animal: "", count: 0 });
    }
  }
}

async function embeddings() {
  const embedder = new OpenAIEmbeddings({ model: EMBEDDER });
  const vectors = await embedder.embedDocuments(["a cat", "a dog"]);
  assert.deepEqual(vectors.map((vector) => vector.length), [DIMENSIONS, DIMENSIONS]);
}

// Two nodes of a graph whose messages have the name of their author.
async function agents() {
  for (const model of MODELS) {
    const nodeOf = (name) => async ({ messages }) => {
      const answer = await model.invoke(messages);
      answer.name = name;
      return { messages: [answer] };
    };
    const graph = new StateGraph(MessagesAnnotation)
      .addNode("clerk", nodeOf("clerk"))
      .addNode("translator", nodeOf("translator"))
      .addEdge(START, "clerk")
      .addEdge("clerk", "translator")
      .compile();
    const { messages } = await graph.invoke({ messages: [new HumanMessage("hello")] });
    assert.deepEqual(messages.map((message) => message.name), [undefined, "clerk", "translator"]);
    checkText(messages.at(-1).text);
  }
}

await run(hello, stream, tools, schema, embeddings, agents);
