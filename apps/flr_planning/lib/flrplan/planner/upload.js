// Collects what is dropped or chosen, and sends it as one form.
"use strict";
const at = (id) => document.getElementById(id);
const form = at("form"), drop = at("drop");
let chosen = []; // [name with its folders, File]
let busy = false;

function fail(text) {
  at("error").textContent = text;
  at("error").hidden = !text;
}

function choose(files) {
  chosen = files;
  const bytes = files.reduce((sum, [, file]) => sum + file.size, 0);
  const tooLarge = bytes > Number(form.dataset.largestBytes);
  const what = files.length === 1 ? files[0][0] : `${files.length} files`;
  at("chosen").textContent = files.length ? `${what}, ${(bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0)} MB` : "Nothing chosen yet.";
  fail(tooLarge ? `This is larger than ${form.dataset.largest}, the most that is taken. Choose the folder of one CT series.` : "");
  at("plan").disabled = busy || tooLarge || !files.length;
}

async function filesOf(entry) {
  if (entry.isFile) {
    const file = await new Promise((done, failed) => entry.file(done, failed));
    return [[entry.fullPath.replace(/^\//, ""), file]];
  }
  const reader = entry.createReader(), found = [];
  for (;;) { // a browser hands out a folder in portions of some hundred entries
    const some = await new Promise((done, failed) => reader.readEntries(done, failed));
    if (!some.length) break;
    found.push(...some);
  }
  return (await Promise.all(found.map(filesOf))).flat();
}

for (const [button, input] of [["choose-folder", "folder"], ["choose-file", "file"]]) {
  at(button).addEventListener("click", () => at(input).click());
  at(input).addEventListener("change", (event) => {
    choose([...event.target.files].map((file) => [file.webkitRelativePath || file.name, file]));
    event.target.value = ""; // the same choice again is a choice, too
  });
}

// The whole page takes a drop: beside the box, the browser would leave the page to show the file.
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  drop.classList.add("over");
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) drop.classList.remove("over");
});
document.addEventListener("drop", async (event) => {
  event.preventDefault();
  drop.classList.remove("over");
  if (busy) return;
  const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry()).filter(Boolean);
  at("chosen").textContent = "Reading the folder ...";
  try {
    choose((await Promise.all(entries.map(filesOf))).flat());
  } catch (error) {
    choose([]);
    fail(`What was dropped cannot be read (${error.message}). Copy it to this computer's disk first.`);
  }
});

function setBusy(now) {
  busy = now;
  at("plan").disabled = busy || !chosen.length;
  at("sending").hidden = !busy;
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (busy || !chosen.length) return;
  const data = new FormData(form);
  for (const [name, file] of chosen) data.append("files", file, name);
  const request = new XMLHttpRequest();
  request.open("POST", "plans");
  request.responseType = "json";
  request.upload.addEventListener("progress", ({ loaded, total }) => {
    at("progress").value = total ? loaded / total : 0;
    at("said").textContent = loaded < total ? `Sending: ${Math.floor((100 * loaded) / total)} %` : "Looking at what was sent ...";
  });
  request.addEventListener("load", () => {
    if (request.status === 201) return location.assign(request.response.plan);
    setBusy(false);
    fail(request.response?.error ?? request.response?.detail ?? `The server did not take it (${request.status}).`);
  });
  request.addEventListener("error", () => {
    setBusy(false);
    fail("The upload did not reach the server. Is the server still running, and is the folder still there?");
  });
  fail("");
  at("said").textContent = "Sending ...";
  setBusy(true);
  request.send(data);
});

window.addEventListener("pageshow", () => { // back from the plan's page
  setBusy(false);
  choose([]);
});
