// Chromium, and what is asked of every page.

import { chromium } from "playwright-core";

/** A browser with a fresh profile, which takes every certificate and finds `localhost` and names below it on this machine. */
export const launch = () => chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  // They keep a browser in a container quiet and on this machine.
  args: ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--no-proxy-server", "--ignore-certificate-errors",
    "--host-resolver-rules=MAP localhost 127.0.0.1, MAP *.test 127.0.0.1"],
});

/** Somebody with a browser of their own: `{ page, context, troubles, leave }`. `troubles` are what pages complain of. */
export async function visitor(browser, options = {}) {
  const context = await browser.newContext({ reducedMotion: "reduce", ignoreHTTPSErrors: true, ...options });
  context.setDefaultTimeout(15_000);
  const page = await context.newPage();
  const troubles = [];
  page.on("pageerror", (error) => troubles.push(String(error)));
  // The browser itself notes each refusal ("Failed to load resource"); nothing else may be said.
  page.on("console", (message) => { if (!/^Failed to load resource/.test(message.text())) troubles.push(message.text()); });
  return { page, context, troubles, leave: () => context.close() };
}

/**
 * Runs in a page: texts whose colours are closer than WCAG 2.2 AA allows, 4.5 to 1, or 3 to 1 when large.
 */
export function faintTexts() {
  const rgba = (text) => (text.match(/[\d.]+/g) ?? []).map(Number);
  const light = (colour) => {
    const [r, g, b] = colour.map((c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const [r, g, b, a = 1] = rgba(getComputedStyle(at).backgroundColor);
      if (a === 1) return [r, g, b];
      if (a !== 0) throw new Error("a half transparent ground");
    }
    return [255, 255, 255];
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !element.checkVisibility() || element.closest("script, .visually-hidden")) continue;
    const style = getComputedStyle(element);
    const [over, under] = [light(rgba(style.color).slice(0, 3)), light(ground(element))].sort((a, b) => b - a);
    const ratio = (over + 0.05) / (under + 0.05);
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    if (ratio < (large ? 3 : 4.5)) found.push(`${ratio.toFixed(2)} ${walker.currentNode.data.trim().slice(0, 40)}`);
  }
  return found;
}
