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
const hashes = [];
for (const kind of ["js", "wasm", "css"]) {
  const content = readFileSync(join(built, `kiops.${kind}`));
  const hash = createHash("sha256").update(content).digest("hex").slice(0, 16);
  const file = join(pkg, `kiops.${hash}.${kind}`);
  write(file, content);
  compress(file);
  hashes.push(`${kind}: ${hash}\n`);
}
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
  const current = hashes.some((line) => name.includes(line.split(": ")[1].trim()));
  if (current) utimesSync(file, new Date(), new Date());
  else if (name !== "snippets" && Date.now() - statSync(file).mtimeMs > day) rmSync(file);
}
