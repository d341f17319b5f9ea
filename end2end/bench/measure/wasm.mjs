// Bytes on the wire (1 kB = 1,000 bytes) of the page's program, asked for as browsers ask, so with whatever compression the
// server really gives them.
// wasm_brotli_kb: every .wasm file that a page needs before its program runs, on the sign-in page.
// wasm_service_brotli_kb: what a service's pages need beside it; the list loads it once it runs.
import { get } from "node:http";
import { Server } from "../lib/server.mjs";

function answerOf(url, headers) {
  return new Promise((done, failed) => {
    get(url, { headers }, (answer) => {
      let text = "";
      let bytes = 0;
      answer.on("data", (part) => {
        bytes += part.length;
        text += part;
      });
      answer.on("end", () =>
        answer.statusCode === 200 ? done({ bytes, text, headers: answer.headers }) : failed(new Error(`${url} answered ${answer.statusCode}`)),
      );
    }).on("error", failed);
  });
}

const named = (text) => new Set([...text.matchAll(/["'(<]([^"'()<>]+\.wasm)["')>]/g)].map((match) => match[1]));

async function bytesOf(server, paths) {
  let bytes = 0;
  for (const path of paths) {
    bytes += (await answerOf(new URL(path, server.url), { "accept-encoding": "gzip, deflate, br, zstd" })).bytes;
  }
  return bytes;
}

export function measure({ rig }) {
  return Server.with(rig, async (server) => {
    const first = named((await answerOf(new URL("/sign-in", server.url), {})).text);
    if (first.size === 0) throw new Error("the sign-in page names no .wasm file");
    const service = await server.service({ Dockerfile: "FROM busybox:1\n" });
    const dialog = new URL(`/services/edit/${service.id}?build=run`, server.url);
    const { text, headers } = await answerOf(dialog, { cookie: `kiops_session=${server.token}` });
    const beside = new Set([...named(`${text} ${headers.link ?? ""}`)].filter((path) => !first.has(path)));
    if (beside.size === 0) throw new Error("the page of a service names no part of its own");
    const kb = async (name, paths) => ({ name, value: (await bytesOf(server, paths)) / 1000, unit: "kB" });
    return [await kb("wasm_brotli_kb", first), await kb("wasm_service_brotli_kb", beside)];
  });
}
