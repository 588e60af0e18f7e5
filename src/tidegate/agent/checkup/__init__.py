"""The health contract and the process that checks it beside the loop: `python -m tidegate.agent.checkup`."""
