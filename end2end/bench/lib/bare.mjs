// What BuildKit needs by itself: the product's own last buildctl command once more, on the same daemon, with the same
// push and cache arguments, but on a folder that is already there and with nobody reading what it prints.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, writeFileSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { program } from "./process.mjs";

/** Builds `files`; gives the milliseconds from start to end. `server` was made with `recordBuildctl`. */
export async function bareBuild(server, files) {
  const folder = mkdtempSync(join(server.folder, "bare-"));
  const context = join(folder, "context");
  for (const [path, text] of Object.entries(files)) {
    mkdirSync(dirname(join(context, path)), { recursive: true });
    writeFileSync(join(context, path), text);
  }
  // The rig's registries ask nobody who they are.
  writeFileSync(join(folder, "config.json"), "{}");

  const { args, environment } = server.recordedBuildctl();
  const flat = args.flatMap((arg) => /^(--local|--output|--metadata-file)=(.*)$/.exec(arg)?.slice(1) ?? [arg]);
  const ours = flat.map((arg, i) => {
    // As every build of the product, each has labels of its own: its image's configuration is new to the registry.
    if (arg.startsWith("label:")) return `${arg}-${basename(folder)}`;
    if (flat[i - 1] === "--local") return arg.replace(/=.*/, `=${context}`);
    if (flat[i - 1] === "--output") return arg.replace(/(name=[^,"]*):[^,":/]+/, "$1:bare");
    if (flat[i - 1] === "--metadata-file") return join(folder, "metadata.json");
    return arg;
  });

  const began = performance.now();
  const child = spawn(program("KIOPS_BUILDCTL"), ours, {
    env: { ...environment, HOME: folder, DOCKER_CONFIG: folder },
    cwd: folder,
    stdio: "ignore",
  });
  const [code] = await once(child, "close");
  if (code !== 0) throw new Error(`bare buildctl ended with ${code}: ${ours.join(" ")}`);
  return performance.now() - began;
}
