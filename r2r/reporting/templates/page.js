(() => {
  const stage = document.querySelector(".stage");
  const slider = document.getElementById("slider");
  const before = document.getElementById("before");
  const after = document.getElementById("after");
  const rows = [...document.querySelectorAll(".gallery tr[tabindex]")];
  let current = rows[0];

  const chosen = (side) => document.querySelector(`input[name=${side}]:checked`);
  const show = () => {
    const pictures = current.querySelectorAll("img");
    for (const [side, image] of [["left", before], ["right", after]]) {
      const choice = chosen(side);
      const title = choice.parentElement.textContent.trim();
      image.src = pictures[choice.value].src;
      image.alt = title;
      document.getElementById(`tag-${side}`).textContent = title;
    }
    document.getElementById("compare-caption").textContent = current.dataset.caption;
  };
  const select = (row) => {
    current = row;
    show();
    document.getElementById("compare-title").scrollIntoView({ behavior: "smooth" });
  };

  slider.addEventListener("input", () => stage.style.setProperty("--seam", `${slider.value}%`));
  document.querySelectorAll(".choices input").forEach((input) => input.addEventListener("change", show));
  for (const row of rows) {
    row.addEventListener("click", () => select(row));
    row.addEventListener("keydown", (event) => { if (event.key === "Enter") select(row); });
  }
})();
