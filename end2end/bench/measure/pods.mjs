// Builds in Pods of a real Kubernetes of one node, with the images on the node. Each figure is of a new Pod each time.
// pod_click_to_first_buildkit_line_ms_p95: from the click on Start Build (the input event's own time stamp) to the frame
//   that shows BuildKit's first line; each on another commit.
// pod_cached_rebuild_s_p95: from the click to the frame that shows Success, when every step is in the registry's cache.
// pod_cancel_s_p95: from the request to cancel to the status Cancelled and the Pod being gone.
// pod_restart_to_flow_s_p95: from the start of a server that takes the place of a killed one to the first line of the
//   running build that it publishes and that was written after that.
// pod_ten_at_once_s: ten builds that are started together, until the last one is a success.
import { Browser, clickStart } from "../lib/browser.mjs";
import { percentile } from "../lib/numbers.mjs";
import { program, sleep, until } from "../lib/process.mjs";
import { Server } from "../lib/server.mjs";

// Several fit on the node.
const settings = { profile: "small" };

const files = (turn) => ({
  Dockerfile: "FROM busybox:1\nCOPY words.txt turn /app/\nRUN sort /app/words.txt > /sorted.txt\nRUN wc /sorted.txt > /count.txt\n",
  "words.txt": "some\nwords\nto\nsort\n",
  turn: `${turn}\n`,
});

const muttering = (turn) => ({
  Dockerfile: "FROM busybox:1\nCOPY turn /\nRUN i=0; while [ $i -lt 4000 ]; do i=$((i + 1)); echo \"written at $(date +%s)\"; sleep 0.05; done\n",
  turn: `${turn}\n`,
});

/** The rig as Pods see it: all that is on this machine's loopback is at the cluster's host address. */
function seenFromPods(rig, host) {
  const seen = (value) => (typeof value === "string" ? value.replace("127.0.0.1", host) : value);
  return {
    ...Object.fromEntries(Object.entries(rig).map(([name, value]) => [name, seen(value)])),
    command: async (cmd, args) => seen(await rig.command(cmd, args)),
  };
}

export async function measure({ rig, quick }) {
  const times = quick ? 3 : 20;
  const cluster = await rig.command("cluster", { agent: program("KIOPS_POD_AGENT") });
  const environment = {
    KIOPS_RUNNER: "kubernetes",
    KIOPS_KUBECONFIG: cluster.kubeconfig,
    KIOPS_BUILDER_IMAGE: cluster.builder_image,
    KIOPS_IMAGE: cluster.own_image,
  };
  const within = (work) => Server.with(seenFromPods(rig, cluster.host), work, { environment });
  return [
    ...(await within((server) => clicks(server, rig, times))),
    await within((server) => cancels(server, rig, times)),
    await within((server) => restarts(server, times)),
    await within((server) => together(server)),
  ];
}

async function clicks(server, rig, times) {
  const service = await server.service(files(0), settings);
  await server.build(service);
  return Browser.with(server, async ({ page }) => {
    const newest = async () => (await server.api("GET", `services/${service.id}/builds`)).builds[0].id;
    const [lines, rebuilds] = [[], []];
    for (let turn = 1; turn <= times; turn++) {
      await rig.command("commit", { repo: service.repo, branch: "main", files: files(turn) });
      lines.push(await clickStart(page, service, undefined, "load build definition"));
      await server.finished(await newest());
      rebuilds.push((await clickStart(page, service, "Success")) / 1000);
    }
    return [
      { name: "pod_click_to_first_buildkit_line_ms_p95", value: percentile(lines, 0.95), unit: "ms", detail: { p50: Math.round(percentile(lines, 0.5)) } },
      { name: "pod_cached_rebuild_s_p95", value: percentile(rebuilds, 0.95), unit: "s", detail: { p50: percentile(rebuilds, 0.5) } },
    ];
  });
}

/** Until the build's own step writes. */
const mutters = (server, id) => writtenAt(server, id, 1);

async function cancels(server, rig, times) {
  const seconds = [];
  const service = await server.service(muttering("cancel"), settings);
  for (let turn = 0; turn < times; turn++) {
    const commit = await rig.command("commit", { repo: service.repo, branch: "main", files: muttering(`cancel ${turn}`) });
    const { id } = await server.api("POST", `services/${service.id}/builds`, { branch: "main", commit });
    await mutters(server, id);
    const began = performance.now();
    await server.api("POST", `builds/${id}/cancel`);
    const gone = async () => (await rig.command("kubectl", { arguments: ["-n", "kiwi-builds", "get", "pods", "-l", `kiops.io/build=${id}`, "-o", "name"] })) === "";
    await until("the cancelled build's end", async () => (await server.api("GET", `builds/${id}`)).status === "cancelled");
    await until("the cancelled build's Pod to be gone", gone);
    seconds.push((performance.now() - began) / 1000);
  }
  return { name: "pod_cancel_s_p95", value: percentile(seconds, 0.95), unit: "s", detail: { p50: percentile(seconds, 0.5) } };
}

async function restarts(server, times) {
  const seconds = [];
  const service = await server.service(muttering("restart"), settings);
  const { id } = await server.api("POST", `services/${service.id}/builds`, { branch: "main", commit: service.head });
  await mutters(server, id);
  for (let turn = 0; turn < times; turn++) {
    await server.stop("SIGKILL");
    // What the lines say is in whole seconds.
    await sleep(2000 - (Date.now() % 1000));
    const [began, second] = [performance.now(), Math.floor(Date.now() / 1000)];
    await server.start();
    await writtenAt(server, id, second);
    seconds.push((performance.now() - began) / 1000);
    await sleep(500);
  }
  await server.api("POST", `builds/${id}/cancel`);
  await server.finished(id, "cancelled");
  return { name: "pod_restart_to_flow_s_p95", value: percentile(seconds, 0.95), unit: "s", detail: { p50: percentile(seconds, 0.5) } };
}

/** Until a line comes that was written in this second or after it. */
async function writtenAt(server, id, second) {
  for await (const message of server.live(id)) {
    const times = JSON.stringify(message.tail ?? {}).matchAll(/written at (\d+)/g);
    if ([...times].some(([, at]) => Number(at) >= second)) return;
  }
  throw new Error("the live stream ended before anything came");
}

async function together(server) {
  const services = [];
  for (let turn = 0; turn < 10; turn++) services.push(await server.service(files(`together ${turn}`), settings));
  const began = performance.now();
  const builds = await Promise.all(
    services.map((service) => server.api("POST", `services/${service.id}/builds`, { branch: "main", commit: service.head })),
  );
  await Promise.all(builds.map(({ id }) => server.finished(id)));
  return { name: "pod_ten_at_once_s", value: (performance.now() - began) / 1000, unit: "s" };
}
