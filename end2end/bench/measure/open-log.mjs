// open_100k_lines_ms, open_1m_lines_ms: a finished build with that many lines of log, from the start of the navigation
// to its address to the first frame that shows rows of the log; the median of 7 with a server and browser that have
// shown the page before.
// tab_memory_1m_lines_mb: the renderer's private memory (Private_* of smaps_rollup, 1 MB = 1,000,000 bytes) on the
// million-line log after scrolling through it, above that of a new browser's empty page, which is the baseline.
import { Browser, buildUrl } from "../lib/browser.mjs";
import { median } from "../lib/numbers.mjs";
import { privateMb, sleep } from "../lib/process.mjs";
import { Server } from "../lib/server.mjs";

const files = (count) => ({
  Dockerfile: `FROM busybox:1\nRUN seq -w 1 ${count} | sed 's/$/ the quick brown fox jumps over the lazy dog while the build goes on and on/'\n`,
});

export function measure({ rig, quick }) {
  const sizes = quick ? { open_100k_lines_ms: 10_000, open_1m_lines_ms: 100_000 } : { open_100k_lines_ms: 100_000, open_1m_lines_ms: 1_000_000 };
  return Server.with(rig, async (server) => {
    const figures = [];
    let largest;
    for (const [name, count] of Object.entries(sizes)) {
      const service = await server.service(files(count));
      const build = await server.build(service);
      largest = buildUrl(service, build.id);
      const times = await Browser.with(server, async ({ page }) => {
        const times = [];
        for (let i = 0; i < 8; i++) times.push(await openMs(page, largest));
        return times.slice(1);
      });
      figures.push({ name, value: median(times), unit: "ms", detail: { times: times.map(Math.round) } });
    }
    return [...figures, await tabMemory(server, largest)];
  });
}

/** performance.now() counts from the start of the navigation. */
async function openMs(page, url) {
  await page.goto("about:blank");
  await page.goto(url, { waitUntil: "commit" });
  return page.evaluate(async () => (await window.firstRows).at);
}

async function tabMemory(server, url) {
  const privateOf = async (browser) => Math.max(...(await browser.renderers()).map(privateMb));
  const empty = await Browser.with(server, async (browser) => {
    await browser.page.goto("about:blank");
    await sleep(3_000);
    return privateOf(browser);
  });
  const full = await Browser.with(server, async (browser) => {
    await browser.page.goto(url);
    await browser.page.evaluate(scrollThrough);
    // Nobody forces a collection of garbage; what the browser does by itself in a few seconds counts.
    await sleep(3_000);
    return privateOf(browser);
  });
  return { name: "tab_memory_1m_lines_mb", value: full - empty, unit: "MB", baseline: empty };
}

/** From the first row to the last in 300 jumps, each as long as it takes until its rows are there. */
async function scrollThrough() {
  const log = document.querySelector('[role="log"]');
  // The rows are there before the program is. It has taken over when it has put the bar to the end, where the log opens.
  await window.firstRows;
  for (let frame = 0; log.scrollTop === 0; frame++) {
    if (frame > 1_000) throw new Error("the log was never put to its end");
    await new Promise(requestAnimationFrame);
  }
  for (let step = 0; step <= 300; step++) {
    const before = window.visibleRows()[0]?.id;
    log.scrollTop = ((log.scrollHeight - log.clientHeight) * step) / 300;
    await window.painted(() => {
      const rows = window.visibleRows();
      const moved = step === 300 || rows[0]?.id !== before;
      return moved && rows.length * 21 > log.clientHeight - 42;
    });
  }
}
