// Chromium as people use it, and the moment at which something has been painted.
import { chromium } from "@playwright/test";
import { program } from "./process.mjs";
import { password } from "./server.mjs";

// Playwright's locators poll; every time is taken inside the page instead.
function inPage() {
  // What `look` finds at the next animation frame is painted by it; the message comes when that frame is done.
  window.nextFrame = (look, then) =>
    requestAnimationFrame(() => {
      const found = look();
      const channel = new MessageChannel();
      channel.port1.onmessage = () => then(found);
      channel.port2.postMessage(null);
    });
  /** What `look` finds as soon as it is painted, and the time (performance.now) after that frame. */
  window.painted = (look) =>
    new Promise((done, failed) => {
      setTimeout(() => failed(new Error(`not painted after 60 s; the page says: ${document.body.innerText}`)), 60_000);
      let waiting = false;
      const check = () => {
        if (waiting || !look()) return;
        waiting = true;
        window.nextFrame(look, (found) => {
          waiting = false;
          if (!found) return;
          observer.disconnect();
          done({ found, at: performance.now() });
        });
      };
      const observer = new MutationObserver(check);
      observer.observe(document, { subtree: true, childList: true, characterData: true, attributes: true });
      check();
    });
  /** The rows of the log that can be seen now. */
  window.visibleRows = () => {
    const log = document.querySelector('[role="log"]');
    if (!log) return [];
    const frame = log.getBoundingClientRect();
    const [top, bottom] = [Math.max(frame.top, 0), Math.min(frame.bottom, innerHeight)];
    // Rows whose text is still on its way have no address.
    return [...log.querySelectorAll("[id^=row-]")].filter((row) => {
      const box = row.getBoundingClientRect();
      return box.height > 0 && box.bottom > top && box.top < bottom;
    });
  };
  window.firstRows = window.painted(() => window.visibleRows().length > 0);
}

/** The page of one build. */
export const buildUrl = (service, id) => `/services/edit/${service.id}?build=run&id=${id}`;

/**
 * Opens the Run tab and clicks Start Build; the milliseconds from that click to the frame with the badge `status`, or, if
 * that is `undefined`, to the frame with a row of the log that has `text` in it.
 */
export async function clickStart(page, service, status, text) {
  await page.goto(`/services/edit/${service.id}?build=run`);
  // Branches are asked for by the program in the page: when they are there, it runs and a click is no plain form any more.
  await page.waitForFunction(() => document.querySelector("input[name=pick]")?.value.includes(":"));
  await page.evaluate(([status, text]) => {
    // The time stamp is that of the input, before any script has run.
    addEventListener("click", (event) => (window.clicked ??= event.timeStamp), { capture: true });
    // A queued build has its place beside the word.
    const badge = () => document.querySelector(".live .badge")?.textContent.trim().startsWith(status);
    const row = () => window.visibleRows().some((row) => row.textContent.includes(text));
    window.shown = window.painted(status ? badge : row).then(({ at }) => at - window.clicked);
  }, [status, text]);
  await page.getByRole("button", { name: "Start Build" }).click();
  return page.evaluate(() => window.shown);
}

/** Of that click, the milliseconds until its request was sent and until the whole answer was there. */
export function requestOfClick(page) {
  return page.evaluate(() => {
    const request = performance.getEntriesByType("resource").findLast(({ name }) => name.includes("/begin_build"));
    return { asked: Math.round(request.fetchStart - window.clicked), answered: Math.round(request.responseEnd - window.clicked) };
  });
}

export class Browser {
  /** Gives `work` a browser that is signed in. One page each: its renderer is the only one. */
  static async with(server, work) {
    const browser = await chromium.launch({
      executablePath: program("KIOPS_CHROMIUM"),
      args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-features=SpareRendererForSitePerProcess"],
    });
    try {
      const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, baseURL: server.url });
      await context.addInitScript(inPage);
      const page = await context.newPage();
      await page.goto("/sign-in");
      await page.getByRole("textbox", { name: "User" }).fill("admin");
      await page.getByLabel("Password").fill(password);
      await page.getByRole("button", { name: "Sign in" }).click();
      await page.waitForURL((url) => url.pathname !== "/sign-in");
      return await work(Object.assign(new Browser(), { browser, context, page }));
    } finally {
      await browser.close();
    }
  }

  /** Process ids of the renderers. */
  async renderers() {
    const session = await this.browser.newBrowserCDPSession();
    const { processInfo } = await session.send("SystemInfo.getProcessInfo");
    await session.detach();
    return processInfo.filter((process) => process.type === "renderer").map((process) => process.id);
  }
}
