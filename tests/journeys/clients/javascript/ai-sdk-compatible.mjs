// Vercel's AI SDK with its provider for compatible APIs.

import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { runSteps } from "./ai-sdk-steps.mjs";
import { EMBEDDER, KEY, MODEL, URL } from "./steps.mjs";

const provider = createOpenAICompatible({
  name: "sangha",
  baseURL: URL,
  apiKey: KEY,
  supportsStructuredOutputs: true,
});

await runSteps([provider.chatModel(MODEL)], provider.embeddingModel(EMBEDDER));
