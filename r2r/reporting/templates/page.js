(() => {
  const stage = document.querySelector(".stage");
  if (!stage) return;
  const slider = document.getElementById("slider");
  const before = document.getElementById("before");
  const after = document.getElementById("after");
  const rows = [...document.querySelectorAll(".scene")];
  const still = matchMedia("(prefers-reduced-motion: reduce)");
  let current = 0;

  const chosen = (side) => document.querySelector(`input[name=${side}]:checked`);
  const show = () => {
    const row = rows[current];
    const pictures = row.querySelectorAll("img");
    for (const [side, image] of [["left", before], ["right", after]]) {
      const choice = chosen(side);
      const title = choice.parentElement.textContent.trim();
      image.src = pictures[choice.value].src;
      image.alt = title;
      document.getElementById(`tag-${side}`).textContent = title;
    }
    document.getElementById("compare-caption").textContent = row.dataset.caption;
    document.getElementById("position").textContent = `${current + 1} / ${rows.length}`;
    rows.forEach((each, index) => each.classList.toggle("shown", index === current));
  };
  const turn = (by) => {
    current = (current + by + rows.length) % rows.length;
    show();
  };
  const select = (index) => {
    current = index;
    show();
    document.getElementById("compare-title").scrollIntoView({ behavior: still.matches ? "auto" : "smooth" });
  };

  slider.addEventListener("input", () => stage.style.setProperty("--seam", `${slider.value}%`));
  document.querySelectorAll(".choices input").forEach((input) => input.addEventListener("change", show));
  document.getElementById("previous").addEventListener("click", () => turn(-1));
  document.getElementById("next").addEventListener("click", () => turn(1));
  rows.forEach((row, index) => {
    row.addEventListener("click", () => select(index));
    row.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      select(index);
    });
  });

  const gallery = document.querySelector(".gallery");
  const head = document.querySelector(".gallery-head");
  gallery.addEventListener("scroll", () => { head.scrollLeft = gallery.scrollLeft; }, { passive: true });
  show();
})();
