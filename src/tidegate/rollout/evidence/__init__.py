"""The evidence gate: how strongly what was seen speaks against a release, who is to blame, and how many may go next.

Everything here is pure and needs nothing but the standard library and msgspec, so that it can guard somebody else's rollout too. Read in this order:

`settings` what is tolerated · `strata` whose evidence is kept apart · `facts` what is booked · `stakes` what each fact is worth · `book` the sums ·
`wealth` odds against the release · `room` how many may go · `decide` one decision · `baseline` what was normal before · `desk` (with `cohorts`, `sites`,
`risks`, `hazards`) from what happens to facts, booked when they are mature · `watch` all of it as one · `roster` (with `crowd`, `pairs`) the same for
single devices that repeat themselves, come late or lie: what a server holds, stores and takes up again.

The argument why it may be looked at as often as one likes is in `docs/concepts/evidence.md`.
"""
