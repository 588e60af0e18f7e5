"""Ways to tell the world, one file each: a channel of `server.messages`, made from the settings by `server.channels`, used by `server.outbox`."""
