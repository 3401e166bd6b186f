// Asks for the trace and shows the page anew when a receipt came.
const live = document.getElementById("live");
async function look() {
  try {
    const r = await fetch("/trace.json");
    if (!r.ok) throw new Error(r.status);
    const t = await r.json();
    live.classList.remove("off");
    const view = document.getElementById("view");
    if (String(t.receipts) !== view.dataset.version) {
      const html = await (await fetch("/")).text();
      const next = new DOMParser().parseFromString(html, "text/html").getElementById("view");
      view.replaceWith(next);
    }
  } catch {
    live.classList.add("off");
  }
}
setInterval(look, 1000);
