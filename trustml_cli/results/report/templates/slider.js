// A slider shows one frame at a time; without a script all of them are there, one below the other.
for (const slider of document.querySelectorAll(".slider")) {
  const frames = [...slider.querySelectorAll(".frame")];
  const range = slider.querySelector("input");
  const show = () => {
    frames.forEach((frame, number) => { frame.hidden = number !== range.valueAsNumber; });
    range.setAttribute("aria-valuetext", frames[range.valueAsNumber].dataset.value);
  };
  range.closest("p").hidden = false;
  range.addEventListener("input", show);
  show();
}
