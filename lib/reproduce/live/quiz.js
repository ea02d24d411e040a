// Turns every quiz of the page that still stands as a list into forms that answer.
(() => {
  "use strict";
  const make = (name, more = {}) => Object.assign(document.createElement(name), more);

  const formOf = (question, i) => {
    const form = make("form"), field = make("fieldset"), said = make("div", { className: "rg-said" });
    said.setAttribute("role", "status");
    field.append(make("legend", { innerHTML: `${i + 1}. ${question.ask}` }));
    const lines = question.choices.map((choice) => {
      const input = make("input", { type: question.several ? "checkbox" : "radio", name: "answer" });
      const line = make("label");
      line.append(input, make("span", { innerHTML: choice.text }));
      field.append(line);
      return { choice, input, line };
    });
    const clear = () => {
      said.replaceChildren();
      for (const { line } of lines) line.className = "";
    };
    const check = () => {
      clear();
      const chosen = lines.filter(({ input }) => input.checked);
      if (!chosen.length) return said.append(make("p", { textContent: "Choose an answer first." }));
      const all = lines.every(({ choice, input }) => choice.right === input.checked);
      const some = chosen.every(({ choice }) => choice.right);
      const verdict = all ? "Right." : some ? "Right so far, but not all." : "Not right.";
      said.append(make("p", { innerHTML: `<strong>${verdict}</strong>` }));
      for (const { choice, line } of chosen) {
        line.className = choice.right ? "rg-right" : "rg-wrong";
        const named = chosen.length > 1 ? `${choice.text} ` : "";
        said.append(make("p", { innerHTML: `${choice.right ? "✓" : "✗"} ${named}${choice.why}` }));
      }
    };
    form.addEventListener("submit", (event) => { event.preventDefault(); check(); });
    form.addEventListener("change", clear);
    form.append(field, make("button", { type: "submit", textContent: "Check" }), said);
    return form;
  };

  for (const root of document.querySelectorAll(".rg-quiz:not([data-alive])")) {
    const json = root.querySelector("script[type='application/json']");
    if (!json) continue;
    root.dataset.alive = "";
    const forms = JSON.parse(json.textContent).map(formOf);
    [...root.querySelector("ol").children].forEach((item, i) => item.replaceChildren(forms[i]));
    root.addEventListener("keydown", (event) => event.stopPropagation());
  }
})();
