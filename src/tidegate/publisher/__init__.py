"""The publisher: keys, ceremonies, images, bundles. Works offline; only `publish` speaks to a server."""
