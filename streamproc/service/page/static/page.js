// Keeps the part of the page that is live up to date: asks the server for it every two seconds while the page is
// looked at, and changes only what differs, so that focus, selection, scrolling and what was typed stay.
"use strict";

const EVERY_MS = 2000;
const PATIENCE_MS = 8000;

function patch(old, fresh) {
  if (old.nodeType !== fresh.nodeType || old.nodeName !== fresh.nodeName || (old.id || "") !== (fresh.id || "")) {
    old.replaceWith(fresh);
    return;
  }
  if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.data !== fresh.data) old.data = fresh.data;
    return;
  }
  for (const { name } of [...old.attributes]) {
    if (!fresh.hasAttribute(name) && !(old.nodeName === "DETAILS" && name === "open")) old.removeAttribute(name);
  }
  for (const { name, value } of fresh.attributes) {
    if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  patchChildren(old, fresh);
}

function patchChildren(old, fresh) {
  const named = new Map([...old.children].filter((child) => child.id).map((child) => [child.id, child]));
  let at = old.firstChild;
  for (const next of [...fresh.childNodes]) {
    const same = next.id ? named.get(next.id) : undefined;
    if (same && same !== at) {
      old.insertBefore(same, at);
      patch(same, next);
    } else if (at && !(at.id && at.id !== (next.id || "")) && !(next.id && !same)) {
      const following = at.nextSibling;
      patch(at, next);
      at = following;
    } else {
      old.insertBefore(next, at);
    }
  }
  while (at) {
    const following = at.nextSibling;
    at.remove();
    at = following;
  }
}

function states(root) {
  return new Map([...root.querySelectorAll("[data-state]")].map((one) => [one.dataset.state, one.textContent.trim()]));
}

function announce(before, after) {
  const said = [];
  for (const [name, state] of after) {
    if (!before.has(name)) said.push(`${name} is new: ${state}`);
    else if (before.get(name) !== state) said.push(`${name} is now ${state}`);
  }
  for (const name of before.keys()) if (!after.has(name)) said.push(`${name} is gone`);
  if (said.length) document.getElementById("changes").textContent = said.join(". ");
}

function keepLive(live, status) {
  const connection = document.getElementById("connection");
  const pause = document.createElement("button");
  let paused = false;
  let asking = false;
  let timer = 0;

  function say(text, trouble) {
    if (connection.textContent !== text) connection.textContent = text;
    connection.classList.toggle("trouble", trouble);
  }

  async function refresh() {
    if (asking || paused || document.hidden) return;
    asking = true;
    try {
      const response = await fetch(status.dataset.live, {
        headers: { Accept: "text/x-fragment" },
        signal: AbortSignal.timeout(PATIENCE_MS),
      });
      if (response.status === 401) return location.reload();
      if (response.status === 404) return say(`${status.dataset.page} is no longer there.`, true);
      if (!response.ok || response.redirected) throw new Error(String(response.status));
      const fresh = new DOMParser().parseFromString(await response.text(), "text/html");
      const focused = document.activeElement && document.activeElement.id;
      const before = states(live);
      patchChildren(live, fresh.body);
      announce(before, states(live));
      if (focused && document.activeElement === document.body) {
        const again = document.getElementById(focused);
        if (again) again.focus({ preventScroll: true });
      }
      say("Live", false);
    } catch {
      say("The service does not answer: this is what it said last. Trying again.", true);
    } finally {
      asking = false;
      clearTimeout(timer);
      if (!paused && !document.hidden) timer = setTimeout(refresh, EVERY_MS);
    }
  }

  pause.type = "button";
  pause.id = "pause";
  pause.className = "plain";
  pause.textContent = "Pause updates";
  pause.addEventListener("click", () => {
    paused = !paused;
    pause.textContent = paused ? "Go on with updates" : "Pause updates";
    say(paused ? "Paused" : "Live", false);
    clearTimeout(timer);
    refresh();
  });
  connection.after(pause);
  document.addEventListener("visibilitychange", () => {
    clearTimeout(timer);
    refresh();
  });
  timer = setTimeout(refresh, EVERY_MS);
}

const live = document.getElementById("live");
const status_ = document.querySelector("[data-live]");
if (live && status_) keepLive(live, status_);
