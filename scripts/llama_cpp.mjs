// What llama.cpp makes of texts, token by token, through node-llama-cpp's prebuilt binaries:
//   node llama_cpp.mjs MODEL.gguf < {"texts": [...], "prompts": ["..."], "count": 64} > {"ids", "prompts", "continuations", "ends"}
// One thread: those of ggml spin while they wait, which a busy machine pays for. Special tokens are parsed, none are added. Greedy; keys and values in F32.
import {readFileSync, writeFileSync} from "node:fs";
import {createRequire} from "node:module";
import {pathToFileURL} from "node:url";
import path from "node:path";

// The package lies where NODE_LLAMA_CPP says: a folder in which `npm install node-llama-cpp` was run.
const require = createRequire(path.join(process.env.NODE_LLAMA_CPP ?? process.cwd(), "x.js"));
const {getLlama} = await import(pathToFileURL(require.resolve("node-llama-cpp")).href);
const asked = JSON.parse(readFileSync(0, "utf8"));
const llama = await getLlama({gpu: false, build: "never", progressLogs: false, logLevel: "error"});
const model = await llama.loadModel({modelPath: process.argv[2]});
const ids = asked.texts.map((text) => [...model.tokenize(text, true)]);
const prompts = asked.prompts.map((prompt) => [...model.tokenize(prompt, true)]);
const context = await model.createContext({
    contextSize: 512, sequences: 1, threads: 1, flashAttention: false,
    experimentalKvCacheKeyType: "F32", experimentalKvCacheValueType: "F32",
});
const sequence = context.getSequence();
const continuations = [];
for (const prompt of prompts) {
    await sequence.clearHistory();
    const made = [];
    for await (const token of sequence.evaluate(prompt, {temperature: 0, yieldEogToken: true})) {
        made.push(token);
        if (made.length === asked.count || model.isEogToken(token)) break;
    }
    continuations.push(made);
}
const ends = prompts.length === 0 ? [] : [...Array(model.fileInfo.metadata.tokenizer.ggml.tokens.length).keys()].filter((t) => model.isEogToken(t));
writeFileSync(1, JSON.stringify({ids, prompts, continuations, ends}));
await llama.dispose();
