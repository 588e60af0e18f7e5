"""The operators' log as mathematics, which both ends and an auditor's machine share (ADR 0031).

Canonical rows and their chain (`entry`), the tree over them (`tree`), signed heads (`checkpoint`), and what is wrong with a copy (`examine`).
"""
