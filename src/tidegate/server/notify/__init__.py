"""Telling the world: what is owed is a row of the outbox, written in the transaction that caused it, and delivered later, at least once.

`outbox` says when and how often; `webhook` and `mail` deliver; `channels` makes them from the settings. Where a message goes is in the settings alone:
nothing that a request or a device brought chooses it.
"""
