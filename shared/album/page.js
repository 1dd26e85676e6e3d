"use strict";
const search = document.getElementById("search");
const count = document.getElementById("count");
const nothing = document.getElementById("nothing");
const all = count.textContent;
const cards = [...document.querySelectorAll("#pictures > li")].map((card) => ({
  card,
  text: card.textContent.toLowerCase(),
}));

function filter() {
  const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  for (const { card, text } of cards) {
    card.hidden = !words.every((word) => text.includes(word));
    shown += !card.hidden;
  }
  count.textContent = words.length ? `${shown.toLocaleString("en")} of ${all}` : all;
  nothing.hidden = shown > 0;
}

search.hidden = false;
search.addEventListener("input", filter);
filter();
