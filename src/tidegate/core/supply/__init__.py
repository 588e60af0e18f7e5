"""The supply chain of a release: bills of materials, provenance, advisories and statements about them. Pure readers of other people's documents.

Every document is untrusted until its digest is found in a signed target; also then it is bounded before it is parsed, since whoever wrote it may be wrong.
"""
