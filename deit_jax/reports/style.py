"""How the page looks: system fonts, a dark form, one column on a telephone, tidy on paper."""

from deit_jax.reports.palette import COLOURS


def style_sheet() -> str:
    """Return the whole style sheet; nothing is loaded from elsewhere."""
    light = "".join(f"--{name}:{colour.light};" for name, colour in COLOURS.items())
    dark = "".join(f"--{name}:{colour.dark};" for name, colour in COLOURS.items())
    return _RULES.replace("/*light*/", light).replace("/*dark*/", dark)


_RULES = """
:root{color-scheme:light dark;--paper:#fff;--tint:#f6f6f4;/*light*/
  --font:system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif;
  --mono:ui-monospace,"SF Mono",Menlo,Consolas,"DejaVu Sans Mono",monospace}
@media (prefers-color-scheme:dark){:root{--paper:#151515;--tint:#1e1e1e;/*dark*/}}
@media print{:root{color-scheme:light}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0 auto;padding:2rem clamp(1rem,4vw,3rem) 4rem;max-width:82rem;background:var(--paper);
  color:var(--ink);font:1rem/1.5 var(--font);font-variant-numeric:tabular-nums}
h1{font-size:1.75rem;font-weight:600;line-height:1.2;margin:0 0 .25rem;letter-spacing:-.01em}
h2{font-size:1.25rem;font-weight:600;line-height:1.3;margin:3rem 0 .5rem;padding-top:1rem;
  border-top:1px solid var(--grid)}
h3{font-size:1rem;font-weight:600;margin:2rem 0 .5rem}
h1,h2,h3,p,li,dd,figcaption{overflow-wrap:anywhere}
p{margin:.5rem 0;max-width:46rem}
p.note,figcaption,caption{color:var(--muted);font-size:.875rem}
code,td.key{font-family:var(--mono);font-size:.875em}
a{color:inherit;text-decoration-color:var(--muted);text-underline-offset:.15em}
nav{display:flex;flex-wrap:wrap;gap:.25rem 1.25rem;margin:1rem 0 0;font-size:.9375rem}
nav a{text-decoration:none;border-bottom:1px solid var(--muted)}
.scroll{overflow-x:auto;margin:.75rem 0}
table{border-collapse:collapse;font-size:.9375rem;line-height:1.35}
th{font-weight:500;color:var(--muted);font-size:.8125rem;vertical-align:bottom}
th,td{padding:.3rem 1rem .3rem 0;text-align:left;vertical-align:top}
@media (max-width:70rem){table{font-size:.875rem}th,td{padding-right:.6rem}}
td.text:last-child{min-width:9rem;overflow-wrap:anywhere}
.number{text-align:right}
.number,.short{white-space:nowrap}
td{max-width:26rem;overflow-wrap:break-word}
th:first-child,td:first-child{min-width:9rem}
thead tr{border-bottom:1px solid var(--ink)}
tbody+tbody{border-top:1px solid var(--grid)}
tbody tr:hover{background:var(--tint)}
dl{display:grid;grid-template-columns:max-content minmax(0,1fr);gap:.15rem 1.25rem;margin:.75rem 0;
  font-size:.9375rem}
dt{color:var(--muted)}
dd{margin:0}
.panels{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,20rem),1fr));
  gap:1.5rem 2rem;margin:1rem 0}
figure{margin:0;min-width:0}
.panels ul.legend{margin:.25rem 0 0;font-size:.8125rem;gap:.125rem 1rem;color:var(--muted)}
.panels figcaption{color:var(--ink);font-size:.875rem;font-weight:500;margin-bottom:.25rem}
svg{display:block;width:100%;height:auto}
svg text{fill:var(--muted);font:11.5px var(--font);font-variant-numeric:tabular-nums}
.grid{stroke:var(--grid)}
.axis{stroke:var(--muted)}
.curve{fill:none;stroke-width:1.75;stroke-linejoin:round;stroke-linecap:round}
.band{opacity:.15}
ul.legend{display:flex;flex-wrap:wrap;gap:.25rem 1.5rem;list-style:none;margin:.75rem 0;padding:0;
  font-size:.875rem}
ul.legend li{display:flex;align-items:center;gap:.5rem}
ul.legend svg{flex:none;width:28px;height:10px}
.tiles{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,10rem),1fr));
  gap:1.5rem 1.25rem;margin:1rem 0}
.tile img{display:block;width:100%;height:auto;background:var(--tint)}
.tile .pair{display:grid;grid-template-columns:1fr 1fr;gap:.375rem}
.tile .single{max-width:9rem}
img.pixels{image-rendering:pixelated}
.tile figcaption{margin-top:.375rem;font-size:.8125rem;line-height:1.4;color:var(--ink)}
.tile strong{font-weight:600}
.who,.file{color:var(--muted)}
.file{font-size:.75rem}
.beside{display:flex;flex-wrap:wrap;align-items:flex-start;gap:0 3rem}
.beside .scroll{max-width:100%}
table.matrix{font-size:.8125rem}
.matrix th{min-width:0;vertical-align:middle;padding:.2rem .4rem;text-align:right}
.matrix thead th{max-width:6rem;vertical-align:bottom}
.matrix tbody th{max-width:12rem}
.matrix td{min-width:2.3rem;padding:.3rem .4rem;text-align:right;
  background:color-mix(in srgb,var(--ink) var(--share),var(--paper))}
.matrix td.high{color:var(--paper)}
.matrix td.none{color:var(--muted)}
details{margin:1rem 0}
summary{cursor:pointer;color:var(--muted);font-size:.9375rem}
summary:hover{color:var(--ink)}
"""
