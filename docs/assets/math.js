// Formulas of pymdownx.arithmatex (generic), by the KaTeX beside this file: no other host is asked.
document$.subscribe(({ body }) => {
  for (const element of body.querySelectorAll(".arithmatex")) {
    renderMathInElement(element, { throwOnError: true });
  }
});
