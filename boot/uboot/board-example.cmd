# What a board puts before tidegate.cmd: an ARM64 board with its slots in the partitions 2 and 3 of an eMMC, each an ext4 file system with its own kernel.
setenv tidegate_part_A 2
setenv tidegate_part_B 3
setenv tidegate_root_A /dev/mmcblk0p2
setenv tidegate_root_B /dev/mmcblk0p3
setenv tidegate_args "console=ttyS0,115200 rootwait ro panic=5"
setenv tidegate_boot 'load mmc 0:${tidegate_part} ${kernel_addr_r} /boot/Image && load mmc 0:${tidegate_part} ${fdt_addr_r} /boot/board.dtb && booti ${kernel_addr_r} - ${fdt_addr_r}'
