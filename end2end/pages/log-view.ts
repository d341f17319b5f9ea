import { type Locator, expect } from '@playwright/test';

/** A window over a log of any length: the page holds the rows in sight and some around them. */
export class LogView {
  readonly log: Locator;
  readonly search: Locator;
  readonly said: Locator;
  readonly follow: Locator;
  readonly wrap: Locator;
  readonly times: Locator;
  readonly firstError: Locator;
  readonly copy: Locator;
  readonly download: Locator;

  constructor(root: Locator) {
    this.log = root.getByRole('log', { name: 'Build log' });
    this.search = root.getByRole('searchbox', { name: 'Search this log' });
    this.said = root.locator('.log-bar [role=status]');
    this.follow = root.getByRole('switch', { name: 'Follow' });
    this.wrap = root.getByRole('switch', { name: 'Wrap' });
    this.times = root.getByRole('switch', { name: 'Times' });
    this.firstError = root.getByRole('button', { name: /First ERROR/ });
    this.copy = root.getByRole('button', { name: 'Copy', exact: true });
    this.download = root.getByRole('link', { name: 'Download' });
  }

  /** How far a step that ticks has come, of what is drawn of its log. */
  async lastTick(): Promise<number> {
    return Number((await this.log.innerText()).match(/.* tick (\d+) of/s)?.[1] ?? 0);
  }

  /** A row by its number, from 1, if it is drawn. */
  row(number: number): Locator {
    return this.log.locator(`#row-${number}`);
  }

  /** What the search has marked. */
  get marks(): Locator {
    return this.log.locator('mark');
  }

  /** Goes to the next row that holds `text`. */
  async find(text: string): Promise<void> {
    await this.search.fill(text);
    await this.search.press('Enter');
    const hit = this.log.locator('.target mark').first();
    await expect(hit).toHaveText(text, { ignoreCase: true });
    await expect(hit).toBeInViewport();
  }

  /** What is drawn: number and text of each row. Rows whose text is still on its way are left out. */
  drawn(): Promise<[number, string][]> {
    return this.log.evaluate((log) =>
      [...log.querySelectorAll('[id^=row-]')].map((row): [number, string] => [
        Number(row.id.slice('row-'.length)),
        [...row.querySelectorAll(':scope > :not(a)')].map((part) => part.textContent).join(''),
      ]),
    );
  }

  /** The numbers of the rows that can be seen, at least in part. */
  seen(): Promise<number[]> {
    return this.log.evaluate((log) => {
      const view = log.getBoundingClientRect();
      return [...log.querySelectorAll('[id^=row-]')]
        .filter((row) => {
          const { top, bottom } = row.getBoundingClientRect();
          return bottom > view.top + 1 && top < view.top + log.clientHeight - 1;
        })
        .map((row) => Number(row.id.slice('row-'.length)));
    });
  }

  /** Whether what can be seen is all there and has no gap. */
  async full(): Promise<boolean> {
    return this.log.evaluate((log) => {
      const view = log.getBoundingClientRect();
      const rows = [...log.querySelectorAll('[data-row]')].map((row) => ({ row, box: row.getBoundingClientRect() }));
      const seen = rows.filter(({ box }) => box.bottom > view.top + 1 && box.top < view.top + log.clientHeight - 1);
      const [first, last] = [seen[0], seen.at(-1)];
      if (!first || !last) return false;
      const ends = last.row === rows.at(-1)?.row && log.scrollTop + log.clientHeight >= log.scrollHeight - 2;
      return (
        first.box.top <= view.top + 1 &&
        (last.box.bottom >= view.top + log.clientHeight - 1 || ends) &&
        seen.every(({ row }) => row.id !== '')
      );
    });
  }

  /** How many elements the log has on the page. */
  size(): Promise<number> {
    return this.log.evaluate((log) => log.querySelectorAll('*').length);
  }

  async scrollTo(place: 'top' | 'middle' | 'end'): Promise<void> {
    const part = { top: 0, middle: 0.5, end: 1 }[place];
    await this.log.evaluate((log, part) => log.scrollTo(0, (log.scrollHeight - log.clientHeight) * part), part);
  }

  /** Every row, read by scrolling from the first to the last as a person would. */
  async readAll(): Promise<Map<number, string>> {
    const rows = new Map<number, string>();
    await this.log.evaluate((log) => log.scrollTo(0, 0));
    for (;;) {
      await expect.poll(async () => (await this.drawn()).some(([number]) => number === rows.size + 1)).toBe(true);
      for (const [number, text] of await this.drawn()) rows.set(number, text);
      const atEnd = await this.log.evaluate((log) => {
        log.scrollBy(0, log.clientHeight / 2);
        return log.scrollTop + log.clientHeight >= log.scrollHeight - 1;
      });
      if (atEnd) break;
    }
    await expect.poll(async () => (await this.drawn()).at(-1)?.[0]).toBeGreaterThanOrEqual(rows.size);
    for (const [number, text] of await this.drawn()) rows.set(number, text);
    return rows;
  }

  /** The page shows the stored log: each row once, in its place. What the product itself says is worded differently. */
  async toShow(stored: string): Promise<void> {
    const expected = stored.replace(/\n$/, '').split('\n');
    const shown = await this.readAll();
    expect([...shown.keys()].sort((a, b) => a - b)).toEqual(expected.map((_, index) => index + 1));
    for (const [index, line] of expected.entries()) {
      if (!line.startsWith('--- ')) expect(shown.get(index + 1), `row ${index + 1}`).toBe(line);
    }
  }
}
