// Shows how far a plan is, and the page anew once it is there.
"use strict";

async function look() {
  try {
    const answer = await fetch("state", { cache: "no-store" });
    if (answer.status === 404) return location.reload(); // deleted
    const progress = await answer.json();
    if (["choose", "done", "failed"].includes(progress.state)) return location.reload();
    const text = progress.text.charAt(0).toUpperCase() + progress.text.slice(1);
    const said = document.getElementById("said");
    if (said.textContent !== text) said.textContent = text; // a screen reader says what changes
    document.getElementById("progress").value = progress.done;
  } catch {
    document.getElementById("said").textContent = "The server does not answer; trying again.";
  }
  setTimeout(look, 1000);
}
look();
