// Updates the page and sends its forms without reloading. The page also works without this script, by loading pages. The
// server renders everything; this script only merges the server's HTML into the page, element by element, so that focus,
// selections and typed text stay as they are.
"use strict";

(() => {
  const shown = document.querySelector("main");
  const connection = document.getElementById("connection");

  // ----- Merging a newer page into the current one.

  const isElement = (node) => node.nodeType === Node.ELEMENT_NODE;
  const isField = (node) => node.matches("input, textarea, select");
  const hasOptionChanged = (option) => option.selected !== option.defaultSelected;

  const isTouched = (field) =>
    field.matches("select")
      ? [...field.options].some(hasOptionChanged) && field.selectedIndex !== 0
      : field.value !== field.defaultValue;

  // A form that a person is editing is kept. The response to a form is kept too, until another form gets a response.
  // `answered` is the form whose response is merged; null if the update is not a response.
  const isKept = (node, answered) =>
    isElement(node) &&
    ((answered === null && node.hasAttribute("data-answer")) || (node !== answered && isBeingWritten(node)));

  const isSent = (node) => node.matches('form[method="post"]');
  const fieldsOf = (form) => [...form.elements].filter(isField);
  const isBeingWritten = (node) => node.matches("form") && fieldsOf(node).some(isTouched);

  // A rejected form that the newer page does not have is kept, because it holds the only copy of the typed text. A
  // success notice is not kept on the page of something else.
  const mustStay = (node, answered) =>
    isElement(node) &&
    node.id !== "notice" &&
    [node, ...node.querySelectorAll("form")].some(
      (each) => isKept(each, answered) || isBeingWritten(each) || (isSent(each) && each.hasAttribute("data-answer")),
    );

  function update(node, newer, answered) {
    if (isKept(node, answered)) return;
    if (!isElement(node)) {
      if (node.nodeValue !== newer.nodeValue) node.nodeValue = newer.nodeValue;
      return;
    }
    const follows = node.matches("input, textarea") && !isTouched(node);
    updateAttributes(node, newer);
    updateChildren(node, newer, answered);
    if (follows && isTouched(node)) node.value = node.defaultValue;
  }

  function updateAttributes(node, newer) {
    for (const { name, value } of newer.attributes) {
      if (node.getAttribute(name) !== value) node.setAttribute(name, value);
    }
    for (const { name } of [...node.attributes]) {
      // The person decides whether it is open.
      if (!newer.hasAttribute(name) && name !== "open") node.removeAttribute(name);
    }
  }

  function updateChildren(node, newer, answered) {
    const wanted = new Set([...newer.children].map((child) => child.id).filter(Boolean));
    const present = new Map([...node.children].filter((child) => child.id).map((child) => [child.id, child]));
    let next = node.firstChild;
    const dropUntil = (found) => {
      while (next && !found(next)) {
        const after = next.nextSibling;
        if (!mustStay(next, answered)) next.remove();
        next = after;
      }
    };
    for (const child of [...newer.childNodes]) {
      const same = child.id ? present.get(child.id) : undefined;
      if (same && same.nodeName === child.nodeName) {
        dropUntil((each) => each === same || (each.id && wanted.has(each.id)));
        if (next === same) next = same.nextSibling;
        else node.insertBefore(same, next);
        update(same, child, answered);
      } else if (!child.id && next && !next.id && next.nodeName === child.nodeName) {
        const found = next;
        next = found.nextSibling;
        update(found, child, answered);
      } else {
        node.insertBefore(document.importNode(child, true), next);
      }
    }
    dropUntil(() => false);
  }

  function show(html, answered) {
    const page = new DOMParser().parseFromString(html, "text/html");
    const focused = document.activeElement;
    document.title = page.title;
    update(shown, page.querySelector("main"), answered);
    if (answered) (shown.querySelector('[aria-invalid="true"]') ?? shown.querySelector("#failure"))?.focus();
    if (focused !== document.body && !focused.isConnected && document.activeElement === document.body) {
      const notice = shown.querySelector("#notice");
      (notice?.textContent.trim() ? notice : shown.querySelector("h1")).focus();
    }
  }

  // ----- Changes made elsewhere.

  let refreshing = false;
  let refreshAgain = false;
  let sending = false; // a form: its response is shown before any refresh
  let answers = 0;

  async function refresh() {
    refreshAgain = true;
    if (refreshing || sending) return;
    refreshing = true;
    try {
      while (refreshAgain && !sending) {
        refreshAgain = false;
        const before = answers;
        const response = await fetch(location.href);
        const html = await response.text();
        // The response to a form is newer and has a notice.
        if (!sending && before === answers) show(html, null);
        else refreshAgain = true;
      }
      say("");
    } catch {
      lost();
    } finally {
      refreshing = false;
    }
  }

  const say = (text) => {
    if (connection.textContent !== text) connection.textContent = text;
  };
  // An earlier message about a form is more specific.
  const lost = () => say(connection.textContent || "The emulator does not answer. This page may be out of date.");

  let stream = null;

  function follow() {
    if (stream || document.hidden) return;
    stream = new EventSource("/changes");
    stream.onmessage = refresh;
    stream.onerror = lost;
  }

  function leave() {
    stream?.close();
    stream = null;
  }

  // A hidden page closes its stream, because browsers allow only a few connections to one server.
  document.addEventListener("visibilitychange", () => (document.hidden ? leave() : follow()));
  addEventListener("pagehide", leave);
  addEventListener("pageshow", follow);

  // ----- Forms.

  function reset(field) {
    if (field.matches("select")) for (const option of field.options) option.selected = option.defaultSelected;
    else field.value = field.defaultValue;
  }

  // Text that was typed after sending is kept.
  function finish(form, sent) {
    for (const field of fieldsOf(form)) if (field.value === sent.get(field)) reset(field);
    form.removeAttribute("data-answer");
  }

  document.addEventListener("submit", async (event) => {
    const form = event.target;
    const button = event.submitter;
    if (!isSent(form)) return;
    event.preventDefault();
    if (sending) return;
    sending = true;
    const sent = new Map(fieldsOf(form).map((field) => [field, field.value]));
    const body = new URLSearchParams(new FormData(form));
    if (button?.name) body.append(button.name, button.value);
    try {
      const response = await fetch(button?.getAttribute("formaction") ?? form.getAttribute("action"), {
        method: "POST",
        body,
      });
      const html = await response.text();
      answers += 1;
      if (response.ok) finish(form, sent);
      show(html, form);
      say("");
    } catch {
      say("The emulator does not answer. It may not have received your form.");
    } finally {
      sending = false;
      if (refreshAgain) refresh();
    }
  });

  follow();
})();
