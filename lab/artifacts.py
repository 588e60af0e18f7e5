"""Everything that the lab makes once on a machine and keeps: kernel, boot loaders, root file systems. Made beforehand, so that no lane waits for it."""

from lab import grub, images, kvm, sandbox, systemd_image, tools, uboot


def make_all() -> None:
    """Make what is missing; some minutes on a machine that never ran the lab, nothing on the others.

    Raises:
        MissingError: a package is missing, or Debian's archive cannot be reached.
    """
    tools.require()
    kvm.accelerator()
    for style in uboot.STYLES:
        uboot.rom(style)
    sandbox.built()
    grub.core()
    images.tree()
    systemd_image.system()
    systemd_image.light_kernel()
