"""How the page looks: light or dark as the reader's system is, on a wall or on a phone."""

from __future__ import annotations

STYLE = """
:root {
  color-scheme: light dark;
  --ground: #f4f6f8; --card: #ffffff; --text: #17202b; --dim: #55616f; --line: #dfe4ea;
  --well: #16794a; --watch: #8f5b00; --act: #b92626;
  --well-soft: #dcf1e5; --watch-soft: #fbecc8; --act-soft: #fbe1df;
  --gone: #b3bdc8; --left: #4db380; --margin: #bfe3cf; --late: #eeb64e;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #0f1318; --card: #181e25; --text: #e7ecf2; --dim: #9eabb9; --line: #2b343e;
    --well: #5cc98f; --watch: #e3b04b; --act: #ff8a80;
    --well-soft: #143526; --watch-soft: #3a2d0d; --act-soft: #421d1c;
    --gone: #4a5663; --left: #38a06c; --margin: #1f4f38; --late: #c88f25;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; max-width: 74rem; padding: 2rem 1.25rem 3rem;
  background: var(--ground); color: var(--text);
  font: 1rem/1.45 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif;
  font-variant-numeric: tabular-nums; overflow-wrap: anywhere;
}
.well { --level: var(--well); --soft: var(--well-soft); }
.watch { --level: var(--watch); --soft: var(--watch-soft); }
.act { --level: var(--act); --soft: var(--act-soft); }
header { display: flex; align-items: center; gap: 1.1rem; }
h1 { margin: 0; font-size: 1.7rem; line-height: 1.2; letter-spacing: -0.01em; }
header p { margin: 0.25rem 0 0; color: var(--dim); }
.sign { flex: none; width: 3.5rem; height: 3.5rem; }
.sign circle { fill: var(--soft); }
.sign path {
  fill: none; stroke: var(--level); stroke-width: 2.2; stroke-linecap: round; stroke-linejoin: round;
}
.facts {
  display: grid; grid-template-columns: repeat(auto-fit, minmax(15rem, 1fr)); gap: 1rem;
  margin: 1.75rem 0;
}
.facts div {
  background: var(--card); border: 1px solid var(--line); border-radius: 0.75rem;
  padding: 0.85rem 1.1rem;
}
dt { color: var(--dim); font-size: 0.8rem; }
dd { margin: 0; }
.facts dd { font-size: 1.1rem; font-weight: 600; }
.facts small { display: block; color: var(--dim); font-size: 0.85rem; font-weight: 400; }
.legend {
  display: flex; flex-wrap: wrap; justify-content: flex-end; gap: 0.25rem 1.25rem;
  margin: 0 0 0.6rem; padding: 0; list-style: none; color: var(--dim); font-size: 0.8rem;
}
.legend li::before {
  content: ""; display: inline-block; width: 0.8rem; height: 0.55rem; margin-right: 0.4rem;
  border-radius: 0.15rem; background: var(--swatch);
}
.legend .gone { --swatch: var(--gone); }
.legend .left { --swatch: var(--left); }
.legend .margin { --swatch: var(--margin); }
.legend .late { --swatch: var(--late); }
table {
  width: 100%; border-spacing: 0; background: var(--card);
  border: 1px solid var(--line); border-radius: 0.75rem; overflow: hidden;
}
th, td { padding: 0.8rem 1.1rem; text-align: left; vertical-align: top; font-weight: 400; }
thead th { padding-block: 0.6rem; color: var(--dim); font-size: 0.8rem; }
tbody > tr:first-child > * { border-top: 1px solid var(--line); }
tbody > tr:first-child > th { width: 32%; border-left: 0.25rem solid var(--level); }
tbody.well > tr:first-child > th { border-left-color: transparent; }
thead th:first-child { border-left: 0.25rem solid transparent; }
.name { display: block; font-weight: 600; }
.names { display: block; color: var(--dim); font-size: 0.85rem; }
.pill {
  display: inline-block; margin: 0 0.3rem 0.2rem 0; padding: 0.1rem 0.6rem; border-radius: 1rem; white-space: nowrap;
  background: var(--soft); color: var(--level); font-size: 0.85rem; font-weight: 600;
}
.state { width: 9rem; }
.next { width: 11rem; white-space: nowrap; }
.bar {
  display: block; width: 100%; height: 0.7rem; margin: 0.4rem 0 0.35rem; border-radius: 0.35rem;
}
.bar .gone { fill: var(--gone); }
.bar .left { fill: var(--left); }
.bar .margin { fill: var(--margin); }
.bar .late { fill: var(--late); }
.ends {
  display: flex; flex-wrap: wrap; justify-content: space-between; gap: 0 1rem;
  color: var(--dim); font-size: 0.8rem;
}
.instead { color: var(--dim); font-size: 0.9rem; }
.next time { display: block; color: var(--dim); font-size: 0.85rem; }
.trouble { padding: 0; border-left: 0.25rem solid var(--level); }
.trouble p {
  margin: 0 1.1rem 1rem 1.1rem; padding: 0.6rem 0.9rem; border-radius: 0.5rem;
  background: var(--soft); font-size: 0.9rem;
}
details { font-size: 0.85rem; }
summary { width: fit-content; color: var(--dim); cursor: pointer; }
details dl { margin: 0.4rem 0 0; }
details dl div { margin-bottom: 0.35rem; }
footer { margin-top: 1.5rem; color: var(--dim); font-size: 0.8rem; }
footer p { margin: 0 0 0.4rem; }
:focus-visible { outline: 2px solid var(--well); outline-offset: 2px; border-radius: 0.2rem; }
@media (max-width: 46rem) {
  body { padding: 1.25rem 0.85rem 2rem; }
  h1 { font-size: 1.35rem; }
  .sign { width: 2.75rem; height: 2.75rem; }
  .facts { grid-template-columns: 1fr; gap: 0.6rem; margin: 1.25rem 0; }
  .facts div { display: grid; grid-template-columns: 6.5rem 1fr; align-items: baseline; }
  .facts dd { font-size: 1rem; }
  .legend { justify-content: flex-start; }
  table, tbody, tr, th, td { display: block; }
  table { background: none; border: 0; border-radius: 0; }
  thead { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
  tbody {
    margin-bottom: 0.7rem; background: var(--card); border: 1px solid var(--line);
    border-left: 0.25rem solid var(--level); border-radius: 0.75rem; padding: 0.6rem 0;
  }
  tbody.well { border-left: 1px solid var(--line); }
  tbody > tr:first-child > *, tbody > tr:first-child > th { width: auto; border: 0; }
  th, td, .next, .state { width: auto; padding: 0.25rem 1rem; white-space: normal; }
  .trouble { padding: 0; border: 0; }
  .trouble p { margin: 0.4rem 1rem 0.4rem; }
  .next time { display: inline; }
}
"""
"""The whole style sheet; its hash is in the page's policy."""
