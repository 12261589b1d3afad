"""Style sheet and script of the report page."""

CSS = """
:root { color-scheme: light dark;
  --ground: #fdfdfb; --ink: #1b2127; --muted: #5a6570; --line: #dde1e4; --panel: #f3f4f1;
  --heat: #08407a; --hot: #fff; --right: #0a5ea8; --wrong: #b23c00; --wrong-ground: #fbe3d6; }
@media (prefers-color-scheme: dark) { :root {
  --ground: #14171c; --ink: #e3e7ea; --muted: #98a3ae; --line: #2d343c; --panel: #1d2229;
  --heat: #2f74bb; --hot: #fff; --right: #79bdf5; --wrong: #ff9a63; --wrong-ground: #45240f; } }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--ground); color: var(--ink);
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Noto Sans", sans-serif; }
main { max-width: 62rem; margin: 0 auto; padding: 2rem 1rem 4rem; }
h1, h2, h3 { line-height: 1.25; text-wrap: balance; overflow-wrap: anywhere; font-weight: 650; }
h1 { font-size: clamp(1.5rem, 4.5vw, 2.1rem); margin: 0 0 .4rem; letter-spacing: -.01em; }
h2 { font-size: 1.45rem; margin: 3.5rem 0 .3rem; padding-top: 1.2rem; border-top: 1px solid var(--line); }
h3 { font-size: 1.08rem; margin: 2.4rem 0 .2rem; }
p, li { max-width: 46rem; overflow-wrap: anywhere; }
p { margin: 0 0 .9rem; }
.lead, .settings, .caption, figcaption, caption, small { color: var(--muted); }
.takeaway { font-size: 1.05rem; }
ul { margin: 0 0 1rem; padding-left: 1.1rem; } li { margin-bottom: .25rem; }
nav { display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; margin-top: .8rem; }
a { color: var(--right); text-underline-offset: .2em; }
code { font: .92em ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; overflow-wrap: anywhere; }
.caption, figcaption { font-size: .875rem; line-height: 1.45; margin: .5rem 0 1rem; max-width: 46rem; }
.scroll { overflow-x: auto; max-width: 100%; }
.scroll:focus-visible { outline: 2px solid var(--right); outline-offset: 2px; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; }
.data { width: 100%; }
.data th, .data td { padding: .45rem .9rem .45rem 0; text-align: right; vertical-align: top; white-space: nowrap;
  border-bottom: 1px solid var(--line); }
.data th:first-child, .data .text { text-align: left; }
.data td.text { white-space: normal; }
.data th:last-child, .data td:last-child { padding-right: 0; }
.data thead th { line-height: 1.3; color: var(--muted); font-weight: 500; vertical-align: bottom;
  white-space: normal; min-width: 4rem; }
.data tbody th { font-weight: 600; white-space: normal; min-width: 8rem; overflow-wrap: break-word; }
.data th small { font-weight: 400; } .data tbody th.wide { min-width: 17rem; }
.data small { display: block; font-size: .8rem; }
.charts { display: grid; gap: 1rem 2rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); }
.charts figure { margin: .6rem 0 0; max-width: 34rem; min-width: 0; }
.charts svg { display: block; width: 100%; height: auto; overflow: visible; }
.charts svg text { font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif !important; }
.visualisations { display: grid; gap: 0 2rem; grid-template-columns: minmax(0, 1fr); }
@media (min-width: 60rem) { .visualisations-distribution { grid-template-columns: repeat(2, minmax(0, 1fr)); } }
.visualisation { margin: 1.2rem 0; min-width: 0; }
.frames { display: grid; gap: 1.2rem 1.4rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 9rem + .72rem * var(--side)), 1fr)); }
.frame .caption { margin: .4rem 0 0; }
.player label { display: flex; align-items: center; gap: .6rem; color: var(--ink); margin-bottom: -1.2rem; }
.player input { flex: 1; min-width: 0; accent-color: var(--right); }
.board { display: grid; grid-template-columns: repeat(var(--side), 1fr); border: 2px solid var(--ink);
  max-width: 19rem; aspect-ratio: 1; font-variant-numeric: tabular-nums; print-color-adjust: exact; }
.board i { display: grid; place-items: center; font: inherit; line-height: 1; font-size: .95rem; min-width: 0;
  min-height: 0; border-right: 1px solid var(--line); border-bottom: 1px solid var(--line); }
.board i.edge-right { border-right: 2px solid var(--ink); }
.board i.edge-bottom { border-bottom: 2px solid var(--ink); }
.board .g { font-weight: 750; background: var(--panel); }
.board .r { color: var(--right); }
.board .w { color: var(--wrong); font-weight: 600;
  background: linear-gradient(225deg, var(--wrong) 22%, var(--wrong-ground) 22.5%); }
.board .u { color: var(--muted); font-size: .8rem;
  background: radial-gradient(circle closest-side, transparent 74%, var(--muted) 77% 84%, transparent 87%); }
.legend { font-size: .875rem; color: var(--muted); line-height: 2; }
.board.key { display: inline-grid; width: 1.6rem; grid-template-columns: 1fr; border-width: 1px; vertical-align: middle;
  margin-left: .5rem; } .board.key i { border: 0; }
.legend .key:first-child, .legend .key:first-child span { margin-left: 0; }
.heat, .slots { print-color-adjust: exact; }
.heat th, .slots th { font-weight: 500; color: var(--muted); padding: .2rem .5rem; text-align: center;
  white-space: nowrap; }
.heat td:not(.verdict) { min-width: 2.3rem; height: 1.9rem; text-align: center; font-size: .8rem;
  border: 1px solid var(--ground); background: color-mix(in srgb, var(--heat) var(--p), var(--panel)); }
.heat td.hot { color: var(--hot); }
.heat th.answer { color: var(--ink); font-weight: 750; } .heat th.answer::before { content: "▾ "; }
.heat td.answer:not(.verdict) { border-left: 2px solid var(--ink); border-right: 2px solid var(--ink); }
.heat tr:last-child td.answer { border-bottom: 2px solid var(--ink); }
.answer-key { display: inline-block; line-height: 1.5; white-space: nowrap;
  border: 2px solid var(--ink); border-top: 0; padding: 0 .35rem; color: var(--ink); }
.trained th { color: var(--ink); font-weight: 750; } .trained th::before { content: "▸ "; }
td.verdict { padding-left: .7rem; font-size: .85rem; white-space: nowrap; color: var(--wrong); }
td.verdict.right { color: var(--right); }
.slots td:not(.verdict), .slots.key span { padding: .2rem .4rem; text-align: center; white-space: nowrap;
  border: 1px solid var(--line); min-width: 1.9rem; }
.slots.key span { border-radius: 2px; margin-left: .5rem; }
.slots .r { color: var(--right); }
.slots .w { color: var(--wrong); background: var(--wrong-ground); } .slots .w::after { content: " ✗"; }
.slots .u { color: var(--muted); border: 1px dashed var(--muted) !important; } .slots .u::after { content: " ?"; }
.slots .solution td, .slots .solution th { font-weight: 650; color: var(--ink); border-top: 2px solid var(--ink); }
@media print { :root { --ground: #fff; --ink: #000; --muted: #444; --line: #bbb; --panel: #eee; --heat: #08407a;
    --right: #0a5ea8; --wrong: #b23c00; --wrong-ground: #fbe3d6; }
  main { max-width: none; padding: 0; } nav, .player { display: none; } .scroll { overflow: visible; }
  figure, .frame, tr { break-inside: avoid; } h2, h3 { break-after: avoid; } .data { font-size: .75rem; } }
"""

# The slider over all loops of a board. Without the script the page is complete, because it shows boards too.
SCRIPT = """
for (const player of document.querySelectorAll('.player')) {
  const frames = JSON.parse(player.dataset.frames), cells = player.querySelectorAll('.board i');
  const output = player.querySelector('output'), text = player.querySelector('.caption span');
  const slider = player.querySelector('input');
  const show = () => {
    const [loop, digits, states, counts] = frames[slider.value];
    cells.forEach((cell, i) => {
      cell.textContent = digits[i];
      cell.classList.remove('g', 'r', 'w', 'u');
      cell.classList.add(states[i]);
    });
    output.textContent = loop;
    text.textContent = counts;
    player.firstElementChild.setAttribute('aria-label', `Board after loop ${loop}: ${counts}`);
  };
  slider.addEventListener('input', show);
  show();
  player.hidden = false;
}
"""
