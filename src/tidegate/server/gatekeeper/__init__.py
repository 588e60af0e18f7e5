"""The evidence gate of a server: what devices do, weighed by `rollout.evidence`, kept durable, and turned into permits.

Read in this order: `happenings` what a change of an update says · `muster` whose evidence it is · `opening` how a gate opens · `kept` one rollout's
evidence, in memory and in the store · `keeper` when it is weighed · `rooms` how many permits are left to whom · `replay` whether the log says the same.

Writing goes one way: whoever moves an update notes a happening in its transaction; the process that holds the planner's lease reads them in the transaction
of the plan, decides, and writes decision and room. No permit is granted beyond what was decided, and a process that dies loses nothing.
"""
