// Brings every element of the page that still stands as a picture to life: controls above it, marks that move.
(() => {
  "use strict";
  const make = (name, more = {}) => Object.assign(document.createElement(name), more);
  const place = (sizes, at) => at.reduce((sum, k, i) => sum * sizes[i] + k, 0);

  const panelsOf = (image) => {
    const bytes = Uint8Array.from(atob(image.src.split(",")[1]), (c) => c.charCodeAt(0));
    const drawing = new DOMParser().parseFromString(new TextDecoder().decode(bytes), "image/svg+xml").documentElement;
    const box = make("div", { className: "rg-panels" });
    box.setAttribute("role", "img");
    for (const panel of [...drawing.children]) {
      for (const name of ["x", "y", "width", "height"]) panel.removeAttribute(name);
      panel.setAttribute("aria-hidden", "true");
      box.append(document.importNode(panel, true));
    }
    return box;
  };

  const controlOf = ({ label, choices, start, kind }, changed) => {
    const whole = make("label");
    const said = make("span", { className: "rg-value", textContent: choices[start] });
    const input = make(kind === "menu" ? "select" : "input");
    if (kind === "menu") {
      input.append(...choices.map((text, i) => make("option", { value: i, textContent: text })));
    } else {
      Object.assign(input, { type: "range", min: 0, max: choices.length - 1, step: 1 });
    }
    input.value = start;
    const tell = () => {
      said.textContent = choices[+input.value];
      if (kind !== "menu") input.setAttribute("aria-valuetext", choices[+input.value]);
    };
    input.addEventListener("input", () => { tell(); changed(+input.value); });
    tell();
    whole.append(make("span", { textContent: label }), input, ...(kind === "menu" ? [] : [said]));
    said.setAttribute("aria-hidden", "true");
    return whole;
  };

  const revive = (root) => {
    const data = JSON.parse(root.querySelector("script[type='application/json']").textContent);
    const image = root.querySelector("img"), text = root.querySelector(".rg-text");
    const sizes = data.controls.map((control) => control.choices.length);
    const at = data.controls.map((control) => control.start);
    const box = panelsOf(image);
    const moving = [...box.children].map((panel) => [...panel.querySelectorAll(".moves > path")]);
    const show = () => {
      data.panels.forEach((panel, i) => {
        const frame = panel.frames[place(panel.by.map((j) => sizes[j]), panel.by.map((j) => at[j]))];
        moving[i].forEach((path, k) => path.setAttribute("d", frame[k]));
      });
      text.textContent = data.texts[place(sizes, at)];
      box.setAttribute("aria-label", `${image.alt} Now: ${text.textContent}`);
    };
    const controls = make("div", { className: "rg-controls" });
    controls.append(...data.controls.map((one, i) => controlOf(one, (k) => { at[i] = k; show(); })));
    text.setAttribute("role", "status");
    root.addEventListener("keydown", (event) => event.stopPropagation());
    image.replaceWith(controls, box);
    show();
  };

  for (const root of document.querySelectorAll(".rg-live:not([data-alive])")) {
    if (!root.querySelector("script[type='application/json']")) continue;
    root.dataset.alive = "";
    try {
      revive(root);
    } catch (error) {
      console.error("an element stays a picture:", error);
    }
  }
})();
