"""The boot lab: real boot loaders, a real kernel and the real agent in virtual machines whose power goes at any moment. See `README.md`."""
