// Vercel's AI SDK with its provider for OpenAI, over responses and chat completions.

import { createOpenAI } from "@ai-sdk/openai";
import { runSteps } from "./ai-sdk-steps.mjs";
import { EMBEDDER, MODEL } from "./steps.mjs";

const provider = createOpenAI();

await runSteps([provider.responses(MODEL), provider.chat(MODEL)], provider.embedding(EMBEDDER));
