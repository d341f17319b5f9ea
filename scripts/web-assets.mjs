// web-assets.mjs BUILT PUBLIC FONT SITE PROFILE: puts the built files under hashed names into
// SITE/pkg, the public files and the font beside them, each with .br and .gz twins in a release.
// SITE/.hashes tells the hashes in the form in which Leptos reads them.
import { createHash } from "node:crypto";
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync, utimesSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { brotliCompressSync, constants, gzipSync } from "node:zlib";

const [built, publicFolder, font, site, profile] = process.argv.slice(2);
const pkg = join(site, "pkg");
const day = 24 * 60 * 60 * 1000;

function write(file, content) {
  // Renamed into place: a running server never sends half a file.
  writeFileSync(`${file}.new`, content);
  renameSync(`${file}.new`, file);
}

function compress(file) {
  const content = readFileSync(file);
  if (profile === "wasm-release") {
    const params = { [constants.BROTLI_PARAM_QUALITY]: 11, [constants.BROTLI_PARAM_SIZE_HINT]: content.length };
    write(`${file}.br`, brotliCompressSync(content, { params }));
    write(`${file}.gz`, gzipSync(content, { level: 9 }));
  } else {
    rmSync(`${file}.br`, { force: true });
    rmSync(`${file}.gz`, { force: true });
  }
}

mkdirSync(pkg, { recursive: true });
const hashOf = (...contents) => contents.reduce((sum, content) => sum.update(content), createHash("sha256")).digest("hex").slice(0, 16);
const current = new Set();
function give(name, content) {
  write(join(pkg, name), content);
  compress(join(pkg, name));
  for (const twin of ["", ".br", ".gz"]) current.add(name + twin);
}

const hashes = [];
for (const kind of ["wasm", "css"]) {
  const content = readFileSync(join(built, `kiops.${kind}`));
  const hash = hashOf(content);
  give(`kiops.${hash}.${kind}`, content);
  hashes.push(`${kind}: ${hash}\n`);
}

// The parts that are loaded later: Leptos' manifest says which a page will need, __wasm_split.js loads them.
let loader = readFileSync(join(built, "__wasm_split.js"), "utf8");
const parts = {};
for (const file of readdirSync(built).filter((name) => /^(split|chunk)_.*[.]wasm$/.test(name)).sort()) {
  const content = readFileSync(join(built, file));
  const name = `${file.slice(0, -".wasm".length)}.${hashOf(content)}`;
  give(`${name}.wasm`, content);
  loader = loader.replaceAll(`./${file}`, `./${name}.wasm`);
  if (file.startsWith("split_")) parts[file.slice("split_".length, -".wasm".length)] = [name];
}
const manifest = JSON.stringify(parts);
give(`__wasm_split_manifest.${hashOf(manifest)}.json`, manifest);
hashes.push(`manifest: ${hashOf(manifest)}\n`);

// Each of the two names the other: one hash for both.
const script = readFileSync(join(built, "kiops.js"), "utf8");
const pair = hashOf(script, loader);
give(`kiops.${pair}.js`, script.replace('from "./__wasm_split.js"', `from "./__wasm_split.${pair}.js"`));
give(`__wasm_split.${pair}.js`, loader.replace('from "./kiops.js"', `from "./kiops.${pair}.js"`));
hashes.push(`js: ${pair}\n`, `split: ${pair}\n`);

// Modules of crates that carry their own JavaScript; the main file imports them by this path.
if (existsSync(join(built, "snippets"))) {
  cpSync(join(built, "snippets"), join(pkg, "snippets"), { recursive: true });
}

cpSync(publicFolder, site, { recursive: true });
for (const name of readdirSync(publicFolder, { recursive: true })) {
  if (/\.(svg|txt|js|json|webmanifest)$/.test(name)) compress(join(site, name));
}
mkdirSync(join(site, "fonts"), { recursive: true });
cpSync(font, join(site, "fonts", "inter.woff2"));
write(join(site, ".hashes"), hashes.join(""));

// Files of earlier builds stay for a day: an open page or another server may still ask for them.
for (const name of readdirSync(pkg)) {
  const file = join(pkg, name);
  if (current.has(name)) utimesSync(file, new Date(), new Date());
  else if (name !== "snippets" && Date.now() - statSync(file).mtimeMs > day) rmSync(file);
}
