"""`agent.toml` of a board whose slots are files, for tests that run the agent as a process of its own. `{folder}` and `{url}` are filled in."""

BOARD_CONFIG = """
[device]
product = "gw1"
model = "gw1"
revision = 3
id = "dev-1"
installed_file = "{folder}/installed.json"
[server]
url = "{url}"
root = "{folder}/root.json"
timeout = "5s"
[[slot]]
name = "A"
path = "{folder}/A"
size = "256KiB"
[[slot]]
name = "B"
path = "{folder}/B"
size = "256KiB"
[bootloader]
name = "file"
[bootloader.file]
path = "{folder}/boot.json"
[board]
reboot = "exit:75"
[activate]
reboot_delay = "0s"
[state]
dir = "{folder}/state"
[socket]
path = "{folder}/sock"
"""
