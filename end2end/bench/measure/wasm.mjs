// wasm_brotli_kb: bytes on the wire (1 kB = 1,000 bytes) of every .wasm file that the sign-in page loads, asked for as
// browsers ask, so with whatever compression the server really gives them.
import { get } from "node:http";
import { Server } from "../lib/server.mjs";

function bytesOf(url) {
  return new Promise((done, failed) => {
    get(url, { headers: { "accept-encoding": "gzip, deflate, br, zstd" } }, (answer) => {
      let bytes = 0;
      answer.on("data", (part) => (bytes += part.length));
      answer.on("end", () =>
        answer.statusCode === 200 ? done(bytes) : failed(new Error(`${url} answered ${answer.statusCode}`)),
      );
    }).on("error", failed);
  });
}

export function measure({ rig }) {
  return Server.with(rig, async (server) => {
    const page = await (await fetch(`${server.url}/sign-in`)).text();
    const paths = new Set([...page.matchAll(/["'(]([^"'()]+\.wasm)["')]/g)].map((match) => match[1]));
    if (paths.size === 0) throw new Error("the sign-in page names no .wasm file");
    let bytes = 0;
    for (const path of paths) bytes += await bytesOf(new URL(path, server.url));
    return [{ name: "wasm_brotli_kb", value: bytes / 1000, unit: "kB" }];
  });
}
