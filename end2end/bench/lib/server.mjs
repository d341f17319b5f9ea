// The server under measurement: the release program on a data folder of its own, driven through its JSON API.
import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { chmodSync, openSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { keptFolder, program, until } from "./process.mjs";

export const password = "measured-and-found-good";

export class Server {
  /** Gives `work` a server in a new data folder; afterwards nothing of it is left, its BuildKit included. */
  static async with(rig, work, { environment = {}, recordBuildctl = false } = {}) {
    const { folder, remove } = keptFolder("kiops-bench-");
    const server = Object.assign(new Server(), { rig, folder, environment: { ...environment }, names: 0 });
    try {
      if (recordBuildctl) server.recordBuildctl();
      server.readyMs = await server.start();
      await server.signIn();
      return await work(server);
    } catch (error) {
      if (process.env.BENCH_LOG) process.stderr.write(readFileSync(join(folder, "server.log"), "utf8").slice(-8000));
      throw error;
    } finally {
      await server.stop();
      await remove();
    }
  }

  /** Starts the program and waits for its first page; gives the milliseconds from one to the other. */
  async start() {
    this.port ??= await this.rig.command("free_port");
    this.url = `http://127.0.0.1:${this.port}`;
    const log = openSync(join(this.folder, "server.log"), "a");
    const began = performance.now();
    this.child = spawn(program("KIOPS_SERVER"), [], {
      // Only what is needed: a developer's own KIOPS_… settings must not change the figures.
      env: {
        PATH: process.env.PATH,
        HOME: process.env.HOME,
        LEPTOS_SITE_ROOT: program("LEPTOS_SITE_ROOT"),
        KIOPS_AGENT: program("KIOPS_AGENT"),
        KIOPS_BUILDKITD: program("KIOPS_BUILDKITD"),
        KIOPS_BUILDCTL: program("KIOPS_BUILDCTL"),
        KIOPS_DATA: join(this.folder, "data"),
        KIOPS_LISTEN: `127.0.0.1:${this.port}`,
        KIOPS_ADMIN_PASSWORD: password,
        KIOPS_DOCKERHUB_MIRROR: this.rig.mirror,
        KIOPS_INSECURE_REGISTRIES: `${this.rig.mirror},${this.rig.registry}`,
        ...this.environment,
      },
      stdio: ["ignore", log, log],
    });
    this.pid = this.child.pid;
    const page = () => fetch(`${this.url}/sign-in`).then((answer) => answer.text().then(() => answer.ok), () => false);
    await until("the sign-in page", () => {
      if (this.child.exitCode !== null) {
        throw new Error(`the server ended: ${readFileSync(join(this.folder, "server.log"), "utf8").slice(-2000)}`);
      }
      return page();
    }, { pause: 2 });
    return performance.now() - began;
  }

  async stop(signal = "SIGTERM") {
    const { child } = this;
    if (!child || child.exitCode !== null || child.signalCode !== null) return;
    const ended = once(child, "exit");
    child.kill(signal);
    // This one only: by then another may run in its place.
    const killing = setTimeout(() => child.kill("SIGKILL"), 10_000);
    await ended;
    clearTimeout(killing);
  }

  async signIn() {
    ({ token: this.token } = await this.api("POST", "sessions", { user: "admin", password }));
  }

  async fetch(method, path, body) {
    const answer = await fetch(`${this.url}/api/v1/${path}`, {
      method,
      headers: {
        ...(this.token && { authorization: `Bearer ${this.token}` }),
        ...(body && { "content-type": "application/json" }),
      },
      body: body && JSON.stringify(body),
    });
    if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status} ${await answer.text()}`);
    return answer;
  }

  async api(method, path, body) {
    const text = await (await this.fetch(method, path, body)).text();
    return text && JSON.parse(text);
  }

  /** A repository with these files and a service that builds it. */
  async service(files, settings = {}) {
    const name = `${randomBytes(3).toString("hex")}-${(this.names += 1)}`;
    const url = await this.rig.command("new_repo", { repo: name });
    const head = await this.rig.command("commit", { repo: name, branch: "main", files });
    return { ...(await this.register(name, url, settings)), repo: name, url, head };
  }

  /** A service that builds what is at `url` and pushes to a repository of its own. */
  async register(name, url, settings = {}) {
    const { id } = await this.api("POST", "services", {
      name,
      source: { kind: "git", url, token: null, default_branch: "main" },
      registry_config: { kind: "private", url: this.rig.registry, path: "bench", image_name: name, plain_http: true },
      settings: { dockerfile: { mode: "auto" }, profile: "auto", no_cache: false, time_limit_s: 3600, ...settings },
    });
    return { id, image: `bench/${name}` };
  }

  /** Starts a build of the service's head and waits for its end, which must be Success. */
  async build(service, commit = service.head) {
    const { id } = await this.api("POST", `services/${service.id}/builds`, { branch: "main", commit });
    return this.finished(id);
  }

  /** The build when it is over; it must have ended like that. */
  async finished(id, wanted = "success") {
    const over = ["success", "failure", "cancelled"];
    const look = async () => {
      const build = await this.api("GET", `builds/${id}`);
      return over.includes(build.status) && build;
    };
    const build = await until(`the end of build ${id}`, look, { patience: 600_000, pause: 100 });
    if (build.status !== wanted) {
      const log = await (await this.fetch("GET", `builds/${id}/log`)).text();
      throw new Error(`build ${id}: ${build.status} ${JSON.stringify(build.diagnosis)}\n${log.slice(-2000)}`);
    }
    return build;
  }

  /** The messages of a build's live stream, as a page gets them. */
  async *live(id) {
    const answer = await fetch(`${this.url}/builds/${id}/live?after=0`, { headers: { authorization: `Bearer ${this.token}` } });
    if (!answer.ok) throw new Error(`live stream: ${answer.status}`);
    const decoder = new TextDecoder();
    let rest = "";
    for await (const part of answer.body) {
      const messages = (rest + decoder.decode(part, { stream: true })).split("\n\n");
      rest = messages.pop();
      for (const message of messages) {
        const data = message.split("\n").filter((line) => line.startsWith("data:"));
        // Named ones say that the stream lives, or ends.
        if (data.length > 0 && !/^event:/m.test(message)) yield JSON.parse(data.map((line) => line.slice(5)).join("\n"));
      }
    }
  }

  /** Every stored event of a finished build. */
  async events(id) {
    const text = await (await this.fetch("GET", `builds/${id}/events?after=0`)).text();
    return text.split("\n").filter(Boolean).map((line) => JSON.parse(line));
  }

  /** A stand-in for buildctl that notes its arguments and environment and becomes the real one (1 to 2 ms). */
  recordBuildctl() {
    const script = join(this.folder, "buildctl");
    writeFileSync(
      script,
      `#!/bin/sh
case " $* " in *" build "*)
  printf '%s\\0' "$@" >'${script}.arguments'
  cat /proc/$$/environ >'${script}.environment' ;;
esac
exec '${program("KIOPS_BUILDCTL")}' "$@"
`,
    );
    chmodSync(script, 0o755);
    this.environment.KIOPS_BUILDCTL = script;
  }

  recordedBuildctl() {
    const read = (what) => readFileSync(join(this.folder, `buildctl.${what}`), "utf8").split("\0").slice(0, -1);
    const environment = read("environment").map((pair) => [pair.slice(0, pair.indexOf("=")), pair.slice(pair.indexOf("=") + 1)]);
    return { args: read("arguments"), environment: Object.fromEntries(environment) };
  }
}
