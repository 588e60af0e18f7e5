"""What the boot-loader back ends share: environments, variables, records, and who says which slot runs."""
