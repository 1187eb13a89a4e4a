"""The demo: a month of a token utility on one machine, from the price list to the audited bill.

`run.run` is the whole story; each chapter is a module of its own:

| module | chapter |
|---|---|
| `market` | what is on sale, read from the catalog's own log |
| `subscribers` | a thousand accounts with a mix of offers |
| `traffic` | whose call each call of a trace is, and what will befall it |
| `life` | one call: reserve, route, settle, and everything that goes otherwise |
| `gateway` | many calls at once: batches, order, retries |
| `books` | the bills and statements that came of it |
| `figures`, `show` | what came of it, for programs and for people |

It speaks to the services only as any client does. It must not know how they decide.
"""
