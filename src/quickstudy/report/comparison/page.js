"use strict";
// Everything but single predictions is on the page without this: it sorts tables, shows one matrix of many, and looks up texts.
(() => {
  const make = (tag, text = "", attributes = {}) => {
    const element = document.createElement(tag);
    element.textContent = text;
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    return element;
  };

  const picker = (title, names, changed) => {
    const label = make("label", title);
    const select = make("select");
    names.forEach((name, index) => select.append(make("option", name, { value: index })));
    select.addEventListener("change", changed);
    label.append(select);
    return { label, select, get index() { return Number(select.value); } };
  };

  // Lines without a value stay below, whichever way the others stand.
  const sortBy = (table, column, way) => {
    const value = (line) => {
      const cell = line.cells[column];
      if (cell.dataset.value !== undefined) return Number(cell.dataset.value);
      return cell.textContent === "–" ? null : cell.textContent;
    };
    const order = (a, b) => {
      const [x, y] = [value(a), value(b)];
      if (x === null || y === null) return (x === null) - (y === null);
      if (typeof x === "number" && typeof y === "number") return way * (x - y);
      return way * String(x).localeCompare(String(y), "en", { numeric: true });
    };
    table.tBodies[0].append(...[...table.rows].slice(1).sort(order));
  };

  const makeSortable = (table) => {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const button = make("button", head.textContent, { type: "button", title: "sort" });
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const numbers = table.tBodies[0].querySelector(`:scope > tr > :nth-child(${column + 1})[data-value]`);
        const now = head.getAttribute("aria-sort");
        // Numbers start with the largest, names with the first.
        const way = now ? (now === "ascending" ? -1 : 1) : numbers ? -1 : 1;
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", way > 0 ? "ascending" : "descending");
        sortBy(table, column, way);
      });
    });
  };

  const makeChoice = (place) => {
    const outer = [...place.querySelectorAll(":scope > details")];
    const inner = (one) => [...one.querySelectorAll(":scope > details")];
    const names = [...new Set(outer.flatMap(inner).map((one) => one.dataset.name))];
    const show = () => {
      outer.forEach((one, index) => {
        one.hidden = index !== task.index;
        one.open = !one.hidden;
        inner(one).forEach((each) => {
          each.hidden = each.dataset.name !== names[learner.index];
          each.open = !each.hidden;
        });
      });
    };
    const task = picker("task", outer.map((one) => one.dataset.name), show);
    const learner = picker("learner", names, show);
    const pickers = make("div", "", { class: "pickers" });
    pickers.append(task.label, learner.label);
    place.prepend(pickers);
    place.querySelectorAll("details").forEach((one) => one.classList.add("chosen"));
    show();
  };

  const textTable = (data, caption, heads, lines) => {
    const box = make("div", "", { class: "scroll", tabindex: 0, role: "region", "aria-label": caption });
    const table = make("table", "", { class: "texts" });
    const head = make("tr");
    heads.forEach((name) => head.append(make("th", name, { scope: "col" })));
    const title = make("caption");
    title.append(make("span", caption));
    table.append(title, make("thead"), make("tbody"));
    table.tHead.append(head);
    lines.forEach(([place, ...rest]) => {
      const [text, pair] = data.texts[place];
      const line = make("tr");
      line.append(make("td", pair === null ? text : `${text}\n— ${pair}`));
      rest.forEach((value) => line.append(make("td", value ?? "–", typeof value === "number" ? { class: "number" } : {})));
      table.tBodies[0].append(line);
    });
    box.append(table);
    return box;
  };

  const makeBrowser = (place, data) => {
    const out = make("div", "", { "aria-live": "polite" });
    const show = () => {
      const support = data.support[task.index][shots.index];
      const wrong = data.wrong[task.index][shots.index][learner.index];
      const name = data.learners[learner.index];
      out.replaceChildren(
        support ? textTable(data, `Support set of the first draw: ${support.length} examples`, ["text", "label"], support)
                : make("p", "No support set at this number of shots."),
        wrong === null ? make("p", `No predictions of ${name} were kept here.`)
          : wrong.length ? textTable(data, `Wrong predictions of ${name}, most confident first (at most 20)`,
                                     ["text", "label", "predicted", "probability"],
                                     wrong.map(([text, label, predicted, p]) => [text, label, predicted, p === null ? null : Math.round(1000 * p) / 1000]))
          : make("p", `${name} has no wrong predictions here.`),
      );
    };
    const [task, shots, learner] = ["tasks", "shots", "learners"].map((key) => picker(key.slice(0, -1).replace("shot", "shots"), data[key], show));
    shots.select.value = data.shots.length - 1;
    const pickers = make("div", "", { class: "pickers" });
    pickers.append(task.label, shots.label, learner.label);
    place.append(pickers, out);
    show();
  };

  document.querySelectorAll("table.sort").forEach(makeSortable);
  document.querySelectorAll(".choice").forEach(makeChoice);
  const data = document.getElementById("episode-data");
  if (data) makeBrowser(document.getElementById("episode-browser"), JSON.parse(data.textContent));

  // Paper cannot be unfolded.
  let folded = [];
  addEventListener("beforeprint", () => {
    folded = [...document.querySelectorAll("details:not([open], [hidden])")];
    folded.forEach((one) => { one.open = true; });
  });
  addEventListener("afterprint", () => folded.forEach((one) => { one.open = false; }));
})();
