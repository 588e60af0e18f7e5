"""People and programs that act: accounts, how they sign in, their sessions, and API tokens.

One class a file over the same `Register`; `server.auth` puts them together.
"""
