"""Mailer: whether a message may go, the mail that is made of it, and what became of it.

The way of a message, which is the order to read it in:

- `worker`, `batch`: requests come from the stream and become rows; `store` has the SQL
- `sending`: sees to what is due, for one channel. For each partition there is a `desk` with what is in hand, and with
  receipts that are not recorded yet; `slots` says how much may be in hand, `receivers` how much of it for whom
- `sitting`: one transaction at the desks of several partitions; `turn` decides at each, by `policy` and `consent`
- `composing`: the mail or the call is made (`rendering`, `mime`), and its `links` are signed
- `carriers`: hand it to a `transport`, `smtp` (`smtp_session`, `relay`), `webhooks` (`signing`), or `inbox`
- `outcomes`: what a receipt makes of the message, and the events that tell of it; `lines` are kept with the message
- `doors`: answers the links; `openers` tells people from machines. `page_store` has the SQL, `pages` the HTML
- `past`: the mailer's part of a customer's story
"""
